"""Operations of a transformer: the published counts, and what must hold of any."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim8.plan.flops import Shape, forward, training

CONTEXT = 2048

#: Hoffmann et al. 2022, table A4: layers, width, feed-forward, heads, key size; parameters, and the
#: ratio of the full count to 6 N D at a context of 2048.
TABLE_A4 = [
    (Shape(10, 640, 2560, 10, 64), 73e6, 1.03),
    (Shape(20, 1024, 4096, 16, 64), 305e6, 1.10),
    (Shape(24, 1280, 5120, 10, 128), 552e6, 1.08),
    (Shape(26, 1792, 7168, 14, 128), 1.1e9, 1.04),
    (Shape(28, 2048, 8192, 16, 128), 1.6e9, 1.03),
    (Shape(40, 3584, 14336, 28, 128), 6.8e9, 0.99),
]
AMOUNTS = st.floats(1, 1e15)
SIZES = st.integers(1, 10**5)


def ratio(shape, without):
    """Return how the full count for training compares with 6 N D, with some items left out."""
    items = forward(shape, CONTEXT)
    counted = sum(n_flops for name, n_flops in items.items() if name not in without)
    return 3 * counted / training(shape.params, CONTEXT)


@pytest.mark.parametrize(("shape", "params", "published"), TABLE_A4)
def test_it_reproduces_table_a4_without_the_vocabulary(shape, params, published):
    assert shape.params == pytest.approx(params, rel=0.04)  # 1.1 has two digits
    assert ratio(shape, without={"embedding", "logits"}) == pytest.approx(published, abs=0.006)


def test_table_a4_cannot_be_had_as_its_text_counts():
    shape, _, published = TABLE_A4[0]
    assert published == 1.03
    assert ratio(shape, without=set()) == pytest.approx(1.58, abs=0.005)
    assert ratio(shape, without={"embedding"}) == pytest.approx(1.30, abs=0.005)


@pytest.mark.parametrize(
    ("n_layers", "width", "n_heads", "params"),
    [(80, 16_384, 128, 279.7e9), (80, 8192, 64, 70.06e9)],
)
def test_gopher_and_chinchilla_have_their_sizes(n_layers, width, n_heads, params):
    """Shapes are of Hoffmann et al. 2022, table 4; sizes are what the formula gives for them."""
    assert Shape(n_layers, width, 4 * width, n_heads, 128).params == pytest.approx(params, rel=1e-3)


def test_gpt_3_takes_its_published_count():
    """Patterson et al. 2021, table 4: 3.14e23. The size is rounded to three digits."""
    assert training(175e9, 300e9) == pytest.approx(3.14e23, rel=0.005)


@pytest.mark.parametrize("shape", [row[0] for row in TABLE_A4])
def test_the_attention_term_is_scores_and_weighted_sum_of_the_full_count(shape):
    items = forward(shape, CONTEXT)
    keys = shape.n_heads * shape.key_size
    with_attention = training(shape.params, CONTEXT, shape.n_layers, keys, CONTEXT)
    attention = with_attention - training(shape.params, CONTEXT)
    assert attention == pytest.approx(3 * (items["scores"] + items["weighted sum"]))


@given(AMOUNTS, AMOUNTS, SIZES, SIZES, SIZES)
def test_it_is_linear_in_tokens_and_attention_only_adds(params, tokens, layers, width, context):
    plain = training(params, tokens)
    assert training(params, 2 * tokens) == pytest.approx(2 * plain)
    assert training(params, tokens, layers, width, context) >= plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": 0, "tokens": 1}, "Invalid params: 0 "),
        ({"params": 1, "tokens": float("nan")}, "Invalid tokens: nan "),
        ({"params": 1, "tokens": 1, "width": 8}, "Only width given"),
        ({"params": 1, "tokens": 1, "n_layers": 1, "width": 8, "context": -1}, "Invalid context"),
    ],
)
def test_nonsense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        training(**arguments)
