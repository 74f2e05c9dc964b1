import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where the artifacts of this session lie."""
    return tmp_path_factory.mktemp("artifacts")


def _build(model, path, **options):
    import sparsec

    return sparsec.build(model, output=path, emit=path.suffix.removeprefix("."), **options)


@pytest.fixture(scope="session")
def convnet_so(folder):
    from small_models import CONVNET_DIMS, convnet

    return _build(convnet(), folder / "convnet.so", dims=CONVNET_DIMS)


@pytest.fixture(scope="session")
def convnet_a(folder):
    from small_models import CONVNET_DIMS, convnet

    return _build(convnet(), folder / "convnet_a.a", dims=CONVNET_DIMS)


@pytest.fixture(scope="session")
def convnet_o(folder):
    from small_models import CONVNET_DIMS, convnet

    return _build(convnet(), folder / "convnet_o.o", dims=CONVNET_DIMS)


@pytest.fixture(scope="session")
def lookup_so(folder):
    from small_models import LOOKUP_DIMS, lookup

    return _build(lookup(), folder / "lookup.so", dims=LOOKUP_DIMS)


@pytest.fixture(scope="session")
def product_so(folder):
    """The cheapest artifact; for tests that only need one that is right."""
    from small_models import product

    return _build(product(0), folder / "product.so", dims={"rows": (1, 64)})


@pytest.fixture(scope="session")
def prefixed_archives(folder):
    """Two models with two prefixes: {prefix: archive}."""
    from small_models import product

    return {
        prefix: _build(product(seed), folder / f"{prefix}.a", dims={"rows": (1, 64)}, symbol_prefix=f"{prefix}_")
        for seed, prefix in ((1, "alpha"), (2, "beta"))
    }
