"""C and C++ programs that link artifacts, as docs/abi.md and examples/c say."""

from __future__ import annotations

import re

import numpy as np
import pytest
from c_tools import COMPILERS, CPP_COMPILERS, EXAMPLE, HEADERS, STRICT_C99, STRICT_CPP, compiler_parameters, run
from small_models import matrix, product

import sparsec
from sparsec.runtime_stub.names import with_prefix

C = compiler_parameters(COMPILERS)
CPP = compiler_parameters(CPP_COMPILERS)
LIBRARIES = ("-lm", "-lpthread")


def pattern(shape: tuple[int, ...]) -> np.ndarray:
    """What examples/c/run.c fills a float input with."""
    i = np.arange(np.prod(shape), dtype=np.float64)
    return (i * 37 % 101 / 50 - 1).astype(np.float32).reshape(shape)


def printed(text: str) -> list[tuple[str, str, list[int], list[float]]]:
    """(kind, name, shape, values) of every line."""
    rows = []
    for line in text.splitlines():
        kind, name, shape, values = re.fullmatch(r"(\w+) (\S+) \[(.*)\]:(.*)", line).groups()
        rows.append((kind, name, [int(s) for s in shape.split(",") if s], [float(v) for v in values.split()]))
    return rows


def check_example(text: str, artifact) -> None:
    with sparsec.load(artifact) as model:
        image = pattern((3, 3, 16, 16))
        expected = model.run({"image": image})["scores"]
    (*first, given), (*second, found) = printed(text)
    assert first == ["input", "image", [3, 3, 16, 16]] and second == ["output", "scores", [3, 10]]
    np.testing.assert_allclose(given, image.ravel()[:8], atol=1e-5)
    np.testing.assert_allclose(found, expected.ravel()[:8], rtol=1e-5)


@pytest.mark.parametrize("compiler", C)
def test_example_with_a_shared_library(compiler, convnet_so, tmp_path):
    run([*compiler, *STRICT_C99, f"-I{HEADERS}", EXAMPLE, convnet_so, "-o", "run"], tmp_path)
    check_example(run(["./run", 3, 2], tmp_path), convnet_so)


@pytest.mark.parametrize("compiler", C)
@pytest.mark.parametrize("kind", ["a", "o"])
def test_example_with_a_static_artifact(compiler, kind, convnet_so, tmp_path, request):
    artifact = request.getfixturevalue(f"convnet_{kind}")
    header = artifact.with_suffix(".h")
    options = (f'-DMODEL_HEADER="{header}"', EXAMPLE, artifact, *LIBRARIES)
    run([*compiler, *STRICT_C99, *options, "-o", "run"], tmp_path)
    check_example(run(["./run", 3, 2], tmp_path), convnet_so)


def test_example_says_what_is_wrong(convnet_so, tmp_path):
    run([*COMPILERS["zig"], *STRICT_C99, f"-I{HEADERS}", EXAMPLE, convnet_so, "-o", "run"], tmp_path)
    text = run(["./run", 9], tmp_path, status=1)
    assert "run: input image: dimension batch is 9, but the artifact was built for 1..8\n" in text
    assert "create: options.threads must lie between -1 and 1024" in run(["./run", 1, 5000], tmp_path, status=1)


USE = """
#include "HEADER"

int sparsec_use(float *x, float *y) {
    const sparsec_model *model;
    sparsec_context *context;
    char message[256];
    int64_t x_shape[2] = {1, 6}, y_shape[2] = {1, 4};
    DLTensor in = {x, {1, 0}, 2, {2, 32, 1}, x_shape, NULL, 0}, out = {y, {1, 0}, 2, {2, 32, 1}, y_shape, NULL, 0};
    const DLTensor *inputs[1] = {&in};
    DLTensor *outputs[1] = {&out};
    int status = sparsec_model_open(SPARSEC_ABI_VERSION, &model, message, sizeof message);
    if (!status) status = sparsec_context_create(model, NULL, &context, message, sizeof message);
    if (!status) status = sparsec_run(context, inputs, 1, outputs, 1);
    if (!status) sparsec_context_destroy(context);
    return status != SPARSEC_OK;
}
"""

BOTH = """
#include <stdio.h>
#include "alpha.h"
#include "beta.h"

int alpha_use(float *x, float *y);
int beta_use(float *x, float *y);

int main(void) {
    float x[6] = {1, 2, 3, 4, 5, 6}, y[2][4];
    if (alpha_abi_version() != ALPHA_ABI_VERSION || beta_abi_version() != BETA_ABI_VERSION) return 2;
    if (alpha_use(x, y[0]) || beta_use(x, y[1])) return 3;
    for (int i = 0; i < 8; ++i) printf("%.7g\\n", y[i / 4][i % 4]);
    return 0;
}
"""


@pytest.mark.parametrize("compiler", C)
def test_two_models_with_two_prefixes_in_one_program(compiler, prefixed_archives, tmp_path):
    folder = prefixed_archives["alpha"].parent
    for prefix in prefixed_archives:
        (tmp_path / f"{prefix}.c").write_text(with_prefix(USE.replace("HEADER", f"{prefix}.h"), f"{prefix}_"))
    (tmp_path / "both.c").write_text(BOTH)
    sources = ["both.c", *(f"{p}.c" for p in prefixed_archives)]
    run(
        [*compiler, *STRICT_C99, f"-I{folder}", *sources, *prefixed_archives.values(), *LIBRARIES, "-o", "both"],
        tmp_path,
    )
    found = [float(line) for line in run(["./both"], tmp_path).split()]
    x = np.arange(1, 7, dtype=np.float32)
    expected = [x @ matrix(product(seed)) for seed in (1, 2)]
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-5)


def test_a_prefixed_header_has_no_other_name(prefixed_archives):
    for prefix, archive in prefixed_archives.items():
        text = re.sub(r"/\*.*?\*/", "", archive.with_suffix(".h").read_text(), flags=re.DOTALL)
        assert not re.search(r"sparsec", text, re.IGNORECASE)
        assert f"{prefix}_run(" in text and f"{prefix.upper()}_OK" in text


@pytest.mark.parametrize("compiler", CPP)
def test_the_header_is_cpp(compiler, convnet_so, tmp_path):
    source = """
        #include "sparsec.h"
        #include <cstdio>
        int main() {
            const sparsec_model *model = nullptr;
            char message[64];
            if (sparsec_model_open(SPARSEC_ABI_VERSION, &model, message, sizeof message)) return 1;
            sparsec_tensor_description description;
            if (sparsec_input_description(model, 0, &description)) return 1;
            std::printf("%s\\n", description.name);
        }
    """
    (tmp_path / "cpp.cpp").write_text(source)
    run([*compiler, *STRICT_CPP, f"-I{HEADERS}", "cpp.cpp", convnet_so, "-o", "cpp"], tmp_path)
    assert run(["./cpp"], tmp_path) == "image\n"


@pytest.mark.parametrize("compiler", C)
def test_the_header_agrees_with_dlpack(compiler, tmp_path):
    """A program that includes dlpack.h first uses its types; ours have the same layout."""
    for name in ("with", "without"):
        lines = ['#include "dlpack.h"'] * (name == "with") + ['#include "sparsec.h"', "#include <stdio.h>"]
        members = ("data", "device", "ndim", "dtype", "shape", "strides", "byte_offset")
        prints = "".join(f'printf("%zu ", offsetof(DLTensor, {m}));' for m in members)
        lines += [f'int main(void) {{ {prints} printf("%zu", sizeof(DLTensor)); return 0; }}']
        (tmp_path / f"{name}.c").write_text("\n".join(lines))
    (tmp_path / "dlpack.h").write_text(DLPACK)
    results = []
    for name in ("with", "without"):
        run([*compiler, *STRICT_C99, f"-I{HEADERS}", f"{name}.c", "-o", name], tmp_path)
        results.append(run([f"./{name}"], tmp_path))
    assert results[0] == results[1]


DLPACK = """
#ifndef DLPACK_DLPACK_H_
#define DLPACK_DLPACK_H_
#include <stdint.h>
#include <stddef.h>
typedef enum { kDLCPU = 1, kDLCUDA = 2 } DLDeviceType;
typedef struct { DLDeviceType device_type; int32_t device_id; } DLDevice;
typedef enum { kDLInt = 0U, kDLUInt = 1U, kDLFloat = 2U, kDLBfloat = 4U, kDLBool = 6U } DLDataTypeCode;
typedef struct { uint8_t code; uint8_t bits; uint16_t lanes; } DLDataType;
typedef struct {
    void *data; DLDevice device; int32_t ndim; DLDataType dtype; int64_t *shape; int64_t *strides; uint64_t byte_offset;
} DLTensor;
#endif
"""
"""The part of https://github.com/dmlc/dlpack's header that the two have in common."""
