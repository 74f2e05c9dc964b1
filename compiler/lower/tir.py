"""TIR functions to C kernels."""


class TirKernel:
    """A placeholder."""


def compile_functions(functions, target, jobs):
    """Not yet."""
    raise NotImplementedError(list(functions))
