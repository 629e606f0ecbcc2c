"""From a column's name to its attacks, and what few classes leave of them."""

from absl.testing import parameterized

from atat_tf.attacks import apgd, columns, fab, linf, square, stepped
from atat_tf.errors import InputError

EPSILON, STEP_SIZE = 8 / 255, 2 / 255


def _column(name, num_classes=10):
    return columns.column(name, EPSILON, STEP_SIZE, num_classes)


class ColumnTest(parameterized.TestCase):
    def test_standard_is_autoattack(self):
        targets = range(1, 10)
        expected = (
            apgd.APGD(EPSILON),
            *(
                apgd.APGD(EPSILON, loss="targeted_dlr", target=target)
                for target in targets
            ),
            *(fab.FAB(EPSILON, target=target) for target in targets),
            square.Square(EPSILON),
        )
        self.assertEqual(_column("standard"), expected)
        self.assertEqual(_column("autoattack"), expected)
        self.assertEqual({a.num_steps for a in expected[:-1]}, {100})
        self.assertEqual(expected[-1].num_steps, 5000)

    @parameterized.parameters(
        ("clean", ()),
        ("apgd_dlr", (apgd.APGD(EPSILON, loss="dlr"),)),
        ("apgd_ce20", (apgd.APGD(EPSILON, num_steps=20),)),
        ("apgd_ce_l2@0.5", (apgd.APGD(0.5, "l2"),)),
        ("square50_l2@1/2", (square.Square(0.5, norm="l2", num_steps=50),)),
        ("pgd20x10", (linf.Steps(linf.pgd(EPSILON, STEP_SIZE, 20, 10)),)),
        ("fgsm@4/255", (linf.Steps(linf.fgsm(4 / 255)),)),
        # α is the same share of any ε, so that the edge is in reach.
        ("pgd7@32/255", (linf.Steps(linf.pgd(32 / 255, 8 / 255, 7)),)),
        ("ifgsm9@2/255", (linf.Steps(linf.ifgsm(2 / 255, 0.5 / 255, 9)),)),
    )
    def test_names(self, name, expected):
        self.assertEqual(_column(name), expected)

    @parameterized.parameters(
        ("fgsm", [2]),
        ("pgd20x10", [2 * 20 * 10]),
        ("fab_t7", [3 * 7] * 9),
        ("square50", [50]),
        ("standard", [200, *[200] * 9, *[300] * 9, 5000]),
    )
    def test_forward_passes_of_an_image(self, name, expected):
        self.assertEqual([*map(stepped.passes, _column(name))], expected)

    @parameterized.parameters(
        ("apgd_t", 2, ["margin"]),
        ("apgd_t", 3, ["margin"] * 2),
        ("apgd_t", 4, ["targeted_dlr"] * 3),
        ("apgd_t", 100, ["targeted_dlr"] * 9),
        ("apgd_dlr", 2, ["margin"]),
        ("apgd_dlr", 3, ["dlr"]),
        ("apgd_ce", 2, ["cross_entropy"]),
    )
    def test_losses_and_targets_of_few_classes(self, name, classes, losses):
        attacks = _column(name, classes)
        self.assertEqual([attack.loss for attack in attacks], losses)
        for attack, loss in zip(attacks, losses, strict=True):
            self.assertIn(f"loss={loss}", columns.description(attack))

    def test_says_that_the_loss_is_another(self):
        with self.assertLogs("absl", "WARNING") as logs:
            _column("apgd_t", 3)
        (line,) = logs.output
        self.assertIn("margin in place of targeted_dlr", line)
        self.assertIn("4 classes", line)

    @parameterized.parameters(
        ("aqgd_ce", "Did you mean 'apgd_ce'"),
        ("fab_t_l2", "fab_t in ℓ∞"),
        ("pgd20@", "a radius above 0"),
        ("pgd20@8/0", "a radius above 0"),
        ("square0", "num_steps >= 1"),
        ("standard20", "an attack"),
    )
    def test_wrong_names(self, name, message):
        with self.assertRaisesRegex(InputError, message):
            _column(name)


class InWordsTest(parameterized.TestCase):
    @parameterized.parameters(
        (linf.fgsm(8 / 255), "FGSM, one step of 8/255 from the image itself"),
        (linf.ifgsm(8 / 255, 2 / 255, 20), "I-FGSM, 20 steps of 2/255 from"),
        (linf.pgd(8 / 255, 2 / 255, 7), "PGD, 7 steps of 2/255 from a random"),
    )
    def test_kind_steps_and_start(self, attack, words):
        said = columns.in_words(attack)
        self.assertStartsWith(said, words)
        self.assertEndsWith(said, "at most 8/255 a pixel")


def test_a_shared_attack_is_described_once():
    built = {
        name: columns.column(name, 8 / 255, 2 / 255, 10)
        for name in ("clean", "apgd_ce", "autoattack")
    }
    shared = columns.descriptions(built["apgd_ce"])
    all_of_them = columns.descriptions(built["autoattack"])
    assert {*shared} < {*all_of_them}
    assert columns.described(built) == {*all_of_them}
