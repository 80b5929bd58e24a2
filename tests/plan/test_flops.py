"""Operations of a transformer: the published counts, and what must hold of any."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim8.plan import compute
from optim8.plan.fit import Resampled
from optim8.plan.flops import Shape, forward, training
from optim8.plan.loss import ParametricLoss
from optim8.plan.quantity import fraction
from plan_command import ask

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


def test_every_item_of_the_way_forward_is_the_papers():
    """Hoffmann et al. 2022, appendix F, with a different number for each letter."""
    n_layers, width, feed_forward, n_heads, key_size, vocabulary, context = 2, 3, 5, 7, 11, 13, 17
    keys = n_heads * key_size
    shape = Shape(n_layers, width, feed_forward, n_heads, key_size, vocabulary)
    assert forward(shape, context) == {
        "embedding": 2 * context * vocabulary * width,
        "queries, keys and values": n_layers * 2 * 3 * context * width * keys,
        "scores": n_layers * 2 * context * context * keys,
        "softmax": n_layers * 3 * n_heads * context * context,
        "weighted sum": n_layers * 2 * context * context * keys,
        "output": n_layers * 2 * context * keys * width,
        "feed forward": n_layers * 2 * context * (width * feed_forward + width * feed_forward),
        "logits": 2 * context * vocabulary * width,
    }


@pytest.mark.parametrize("name", ["A", "B", "alpha", "beta"])
@pytest.mark.parametrize("value", [0.0, -0.5, math.nan])
def test_a_law_without_optimum_is_refused(name, value):
    law = ParametricLoss(**{"E": 1.0, "A": 2.0, "B": 3.0, "alpha": 0.4, "beta": 0.5, name: value})
    with pytest.raises(ValueError, match=f"There is no optimum with {name} = "):
        law.frontier()


def test_a_fit_that_has_no_optimum_says_nothing_of_it():
    laws = [ParametricLoss(1.0, 2.0, 3.0, *ends) for ends in ((0.4, 0.5), (-0.1, 0.5), (0.4, -0.1))]
    assert len(Resampled(laws).optima(1e20)) == 1


def test_a_frontier_of_the_users_own_joins_in(tmp_path, capsys):
    file = tmp_path / "mine.toml"
    file.write_text(
        "[frontier.mine]\ntitle = 'mine'\nsource = 'me'\ndate = '2026'\n"
        "params = [1e8, 1e9]\nflops = [1e18, 1e20]\n"
        "[loss.law]\ntitle = 'law'\nsource = 'me'\ndate = '2026'\n"
        "E = 1.0\nA = 10.0\nB = 10.0\nalpha = 0.5\nbeta = 0.5\n"
    )
    found = ask(capsys, f"compute --flops 1e19 --approach mine --data {file}")
    assert found["params"] == pytest.approx(10**8.5)
    assert {"mine", "law"} <= found["spread"].keys()
    assert {"mine", "law"} <= compute.approaches(path for path in [file]).keys()


def test_a_whole_is_a_fraction():
    assert fraction("1") == 1.0
    with pytest.raises(ValueError, match=r"up to 1, found '1\.01'"):
        fraction("1.01")
