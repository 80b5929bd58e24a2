"""Codebooks, codes, scales and blocks, through the public names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import optim8
from optim8 import _native
from reference import blocks_of, nearest_codes
from specs import tensor

CODECS = _native.CODECS
SIGNED = pytest.mark.parametrize("signed", [True, False])
CODEC = pytest.mark.parametrize("codec", CODECS)
DISTRIBUTIONS = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "lognormal": lambda rng, n: rng.lognormal(0, 4, n) * rng.choice([-1, 1], n),
    "cauchy": lambda rng, n: rng.standard_cauchy(n),
    "denormal": lambda rng, n: rng.standard_normal(n) * 1e-40,
    "tiny": lambda rng, n: rng.standard_normal(n) * 2e-38,
    "huge": lambda rng, n: rng.uniform(-1, 1, n) * 3e38,
}


@SIGNED
def test_dynamic_codebook_is_the_published_one(signed):
    tables = json.loads((Path(__file__).parent / "data" / "dynamic_codebook.json").read_text())
    expected = [float.fromhex(x) for x in tables["signed" if signed else "unsigned"]]
    assert optim8.codebook("dynamic", signed).tolist() == expected


@CODEC
@SIGNED
def test_codebooks_are_sorted_and_hold_zero_and_one(codec, signed):
    table = optim8.codebook(codec, signed)
    assert table.dtype == torch.float32
    assert table.shape == (256,)
    if codec == "minifloat" and signed:  # its codes have a sign bit
        assert torch.equal(table[128:], -table[:128])
        table = table[:128]
    assert bool((table.diff() >= 0).all())
    assert 0.0 in table
    assert table[-1] == 1.0
    assert table[0] >= (-1 if signed else 0)


@CODEC
@SIGNED
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_codes_are_the_nearest(codec, signed, kind):
    """Against float64 brute force; only quotients within 3e-7 of a midpoint may go either way."""
    rng = np.random.default_rng(0)
    x = DISTRIBUTIONS[kind](rng, 4096 * 5 + 77).astype(np.float32)
    x = x if signed else np.abs(x)
    q = optim8.quantize(x, codec=codec, signed=signed)
    codebook = optim8.codebook(codec, signed).numpy()
    table = np.unique(codebook)
    for i, block in enumerate(blocks_of(x.shape, 256)):
        scale = np.abs(x[block]).max()
        assert q.scales[i] == scale
        y = x[block].astype(np.float64) / np.float64(scale)
        nearest, margin = nearest_codes(y, table)
        found = np.searchsorted(table, codebook[q.codes[block]])
        wrong = nearest != found
        assert margin[wrong].max(initial=0) <= 3e-7, (kind, nearest[wrong], found[wrong])
        assert np.all(np.abs(nearest - found) <= 1)


@CODEC
@given(
    x=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=14),
        elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
    ),
    block_size=st.sampled_from([32, 64, 256]),
)
def test_round_trip_laws(codec, x, block_size):
    q = optim8.quantize(x, codec=codec, block_size=block_size)
    back = q.dequantize()
    assert (q.codes.shape, q.codes.dtype, back.shape, back.dtype) == (
        x.shape,
        np.uint8,
        x.shape,
        x.dtype,
    )
    assert q.signed == bool((x < 0).any())
    assert q.scales.shape == _native.scales_shape(x.shape, block_size)
    flat, flat_back, scales = x.reshape(-1), back.reshape(-1), q.scales.reshape(-1)
    blocks = list(blocks_of(x.shape, block_size))
    assert len(blocks) == len(scales)
    for block, scale in zip(blocks, scales, strict=True):
        values, values_back = flat[block], flat_back[block]
        assert scale == np.abs(values).max()
        assert np.all(values_back[values == 0] == 0)
        assert np.all(values_back[values == scale] == scale)
    again = optim8.quantize(back, codec=codec, signed=q.signed, block_size=block_size)
    attained = np.array(
        [np.abs(flat_back[block]).max() == s for block, s in zip(blocks, scales, strict=True)],
        bool,
    )
    for block, ok in zip(blocks, attained, strict=True):
        if ok:
            values = again.dequantize().reshape(-1)[block]
            np.testing.assert_array_equal(values, flat_back[block])


@pytest.mark.parametrize(
    ("shape", "block_size", "expected"),
    [
        ((), 256, (1,)),
        ((0,), 256, (0,)),
        ((1000,), 256, (4,)),
        ((3, 300), 256, (3, 2)),
        ((300, 3), 256, (4,)),
        ((5, 16, 16), 256, (5, 1)),
        ((5, 16, 15), 256, (5,)),
        ((2, 4, 4, 32), 128, (2, 4)),
    ],
)
def test_blocks_restart_at_slices_that_hold_one(shape, block_size, expected):
    q = optim8.quantize(torch.zeros(shape), block_size=block_size)
    assert tuple(q.scales.shape) == expected


@CODEC
@SIGNED
def test_dequantized_is_the_table_times_the_scale_exactly(codec, signed):
    codes = torch.arange(256, dtype=torch.uint8).repeat(3)
    scales = torch.tensor([1.0, 3.0, 1e-40])
    q = optim8.QuantizedTensor(codes, scales, codec, signed, 256, (768,), torch.float32)
    expected = optim8.codebook(codec, signed).repeat(3) * scales.repeat_interleave(256)
    assert torch.equal(q.dequantize(), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_quantize_as_their_float32_values(dtype):
    x = torch.randn(3, 500, generator=torch.Generator().manual_seed(0)).to(dtype)
    ours, expected = optim8.quantize(x), optim8.quantize(x.float())
    assert torch.equal(ours.codes, expected.codes)
    assert torch.equal(ours.scales, expected.scales)
    assert ours.dequantize().dtype == dtype
    assert torch.equal(ours.dequantize(), expected.dequantize().to(dtype))
    assert ours.dequantize(torch.float32).dtype == torch.float32


def test_any_strides():
    x = torch.randn(6, 5, 40, generator=torch.Generator().manual_seed(0))
    for view in (x.transpose(0, 2), x[:, ::2, 3:], x[:1].expand(6, 5, 40)):
        ours, expected = optim8.quantize(view), optim8.quantize(view.contiguous())
        assert torch.equal(ours.codes, expected.codes)
        assert torch.equal(ours.scales, expected.scales)


def test_numpy_in_numpy_out():
    x = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
    expected = optim8.quantize(torch.from_numpy(x))
    read_only = x.copy()
    read_only.flags.writeable = False
    for array in (x, read_only, np.asfortranarray(x), x[:, ::-1][:, ::-1]):
        q = optim8.quantize(array)
        assert isinstance(q.codes, np.ndarray)
        np.testing.assert_array_equal(q.codes, expected.codes.numpy())
        np.testing.assert_array_equal(q.dequantize(), expected.dequantize().numpy())
    assert q.dequantize(np.float64).dtype == np.float64


def test_gradients_are_not_tracked():
    q = optim8.quantize(torch.ones(3, requires_grad=True))
    assert not q.dequantize().requires_grad


def test_nonfinite_values_stay_in_their_block():
    for bad in (float("nan"), float("inf"), -float("inf")):
        x = torch.randn(4, 256, generator=torch.Generator().manual_seed(0))
        clean = optim8.quantize(x).dequantize()
        x[1, 7] = bad
        back = optim8.quantize(x).dequantize()
        assert bool(back[1].isnan().all())
        assert torch.equal(back[[0, 2, 3]], clean[[0, 2, 3]])


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"codec": "nope"}, ValueError, "'nope' .known: minifloat, dynamic, root, linear"),
        ({"codec": None}, ValueError, "Invalid codec: None"),
        ({"block_size": 100}, ValueError, "power of two from 32 to 4096, found 100"),
        ({"block_size": -32}, ValueError, "power of two"),
        ({"block_size": 64.0}, TypeError, "block_size must be an int"),
        ({"x": torch.zeros(3, dtype=torch.int32)}, TypeError, "dtype torch.int32"),
        ({"x": torch.zeros(3, dtype=torch.complex64)}, TypeError, "dtype torch.complex64"),
        ({"x": torch.zeros(3, device="meta")}, RuntimeError, "device meta"),
        ({"x": torch.zeros(3).to_sparse()}, RuntimeError, "sparse"),
        ({"x": [1.0]}, TypeError, "found list"),
    ],
)
def test_errors_say_what_was_found(kwargs, error, match):
    arguments = {"x": torch.zeros(3), "signed": True, **kwargs}
    with pytest.raises(error, match=match):
        optim8.quantize(arguments.pop("x"), **arguments)


def test_custom_codebook():
    unsigned = np.linspace(0, 1, 256, dtype=np.float32)
    signed = np.linspace(-127 / 128, 1, 256, dtype=np.float64)
    signed = np.round(signed * 128) / 128
    optim8.register_codebook("test-even", signed, unsigned)
    optim8.register_codebook("test-even", signed, unsigned)
    assert optim8.codebook("test-even", signed=False).tolist() == unsigned.tolist()
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    q = optim8.quantize(x, codec="test-even")
    assert (q.dequantize() - x).abs().max() <= 0.5 / 255 + 1e-6
    with pytest.raises(ValueError, match="exists already"):
        optim8.register_codebook("test-even", signed, unsigned**2)
    with pytest.raises(ValueError, match="exists already"):
        optim8.register_codebook("dynamic", signed, unsigned)


@pytest.mark.parametrize(
    "table",
    [
        [0.0] * 255,
        [1.0] * 256,
        [0.0] * 255 + [float("nan")],
        [1.0, *([0.0] * 255)],
        [0.0, 1e-60, *(i / 255 for i in range(2, 256))],  # 0 twice in float32
    ],
)
def test_custom_codebook_must_be_a_codebook(table):
    with pytest.raises(ValueError, match="codebook 'test-bad' must"):
        optim8.register_codebook("test-bad", table, table)
    with pytest.raises(ValueError, match="Invalid codec"):
        optim8.codebook("test-bad", signed=True)


@pytest.mark.parametrize("codec", _native.CODECS)
def test_negative_values_become_zero_without_signs(codec):
    x = torch.tensor([-1.0, -1e-3, 0.5, 0.25, -0.0, -1e-30])
    back = optim8.quantize(x, codec=codec, signed=False).dequantize()
    assert back[[0, 1, 4, 5]].tolist() == [0.0] * 4
    assert torch.allclose(back[2:4], x[2:4], rtol=0.06)


def test_without_signs_the_largest_positive_value_comes_back():
    x = torch.tensor([1.0, -5.0, 0.5, -torch.inf])
    quantized = optim8.quantize(x, signed=False)
    assert quantized.scales.tolist() == [1.0]
    assert quantized.dequantize()[0] == 1.0
    assert optim8.quantize(x.clone().fill_(torch.nan), signed=False).dequantize().isnan().all()


def test_views_of_numbers_of_the_other_sign():
    x = torch.complex(torch.zeros(50), torch.arange(50.0) - 9).conj().imag
    assert x.is_neg()
    assert torch.equal(
        optim8.quantize(x).dequantize(), optim8.quantize(x.resolve_neg()).dequantize()
    )


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">f2", "<f4"])
def test_arrays_of_either_order_of_bytes(dtype):
    x = np.linspace(-1, 1, 500).astype(dtype)
    native = optim8.quantize(x.astype(x.dtype.newbyteorder("=")))
    q = optim8.quantize(x)
    assert np.array_equal(q.codes, native.codes)
    for restored in (q.dequantize(), native.dequantize(dtype)):
        assert restored.dtype == dtype
        assert np.array_equal(restored, native.dequantize())


def test_complex_numbers_are_refused_whatever_the_signs():
    with pytest.raises(TypeError, match=r"dtype torch.complex64"):
        optim8.quantize(torch.zeros(3, dtype=torch.complex64))


def _flags_at(address):
    """Return the flags of the mapping that an address is in, as the system prints them."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        field, *rest = line.split()
        if "-" in field:
            start, end = (int(part, 16) for part in field.split("-"))
            inside = start <= address < end
        elif inside and field == "VmFlags:":
            return rest
    return []


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="of Linux with large pages"
)
def test_large_results_lie_in_large_pages():
    values = torch.ones(1 << 23)
    quantized = optim8.quantize(values)
    p = torch.nn.Parameter(values.clone())
    p.grad = values
    optimizer = optim8.AdamW([p])
    optimizer.step()
    made = quantized.codes, quantized.dequantize(), optimizer.state[p]["exp_avg_codes"]
    for large in made:
        assert "hg" in _flags_at(large.data_ptr() + large.nbytes // 2)
    _native.prefer_large_pages(2 << 20, 4 << 20)  # where there is nothing: it is a hint


@pytest.mark.parametrize("shape", [(100_000,), (4, 25_000)])
def test_one_negative_value_anywhere_makes_it_signed(shape):
    x = torch.ones(shape)
    x.view(-1)[-1] = -1.0
    quantized = optim8.quantize(x)
    assert quantized.signed
    assert quantized.dequantize().view(-1)[-1] < -0.9


@pytest.mark.parametrize("block_size", [32, 64, 1024])
def test_tensors_come_back_from_blocks_of_any_size(block_size):
    x = tensor((3, 5000))
    back = optim8.quantize(x, block_size=block_size).dequantize()
    torch.testing.assert_close(back, x, rtol=0.1, atol=0.05)


def test_a_codebook_that_is_refused_changes_nothing():
    unsigned = [i / 255 for i in range(256)]
    signed = [i / 128 for i in range(-127, 129)]
    optim8.register_codebook("test-kept", signed, unsigned)
    others = [x**3 for x in signed], [x**3 for x in unsigned]
    for tables in ((others[0], unsigned), (signed, others[1])):
        for name in ("test-kept", "dynamic"):
            before = [optim8.codebook(name, sign) for sign in (True, False)]
            with pytest.raises(ValueError, match="exists already"):
                optim8.register_codebook(name, *tables)
            after = [optim8.codebook(name, sign) for sign in (True, False)]
            assert all(map(torch.equal, before, after))


def test_a_codec_that_cannot_be_a_name_is_refused():
    with pytest.raises(ValueError, match=r"Invalid codec: \[\] \(known: "):
        optim8.quantize(torch.zeros(3), codec=[])


@pytest.mark.parametrize("signed", [None, True, False])
def test_what_cannot_be_quantized_is_refused_in_the_same_words_whatever_the_signs(signed):
    x = torch.ones(3)
    for bad, error, match in (
        (x.to(torch.float8_e4m3fn), TypeError, r"values: dtype torch.float8_e4m3fn where float32"),
        (x.to_sparse(), RuntimeError, r"values: layout torch.sparse_coo where torch.strided"),
        (x.to("meta"), RuntimeError, r"values: device meta where cpu"),
    ):
        with pytest.raises(error, match=match):
            optim8.quantize(bad, signed=signed)
