"""Every exception that sparsec raises on purpose; their text tells the user what is wrong, where, and what to do."""

from __future__ import annotations


class SparsecError(Exception):
    """Base of all; the command line prints the text alone and exits with status 2."""


class ModelError(SparsecError):
    """The ONNX file is not a model, is damaged, or breaks the ONNX specification."""


class UnsupportedError(SparsecError):
    """The model is valid but holds something that sparsec cannot compile; every such node is listed."""


class ShapeError(SparsecError):
    """A dimension is unbound, or what was bound contradicts the model."""


class TargetError(SparsecError):
    """The target is unknown, or this machine cannot build for it."""


class ToolchainError(SparsecError):
    """The C compiler or the linker failed: a defect of sparsec or of its installation, not of the model."""


class ArtifactError(SparsecError):
    """The file is not an artifact, is cut short, or was made for another ABI version."""


class CpuError(ArtifactError):
    """The artifact needs instructions that this CPU lacks."""


class InputError(SparsecError):
    """A wrong name, dtype, shape or value among the inputs of a run."""


class VerifyError(SparsecError):
    """The artifact's results differ from the reference by more than the tolerance."""


class InternalError(SparsecError):
    """An invariant of the compiler is broken: a defect of sparsec, to be reported with the model."""
