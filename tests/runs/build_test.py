"""From recipes to objects: what is filled in, what is refused."""

import importlib

import keras
import tensorflow as tf
from absl.testing import parameterized

from atat_tf.attacks import for_training, linf
from atat_tf.data import datasets
from atat_tf.defenses import atat, compared
from atat_tf.errors import InputError
from atat_tf.runs import build
from atat_tf.runs import checks as run_checks
from atat_tf.runs import config as run_config
from atat_tf.runs import folder as run_folder
from atat_tf.training import build as training_build
from configs import base, ours, small
from tests.support import runs

# {recipe: its defense}
_RECIPES = {
    "standard": "standard",
    "at": "at",
    "madry": "at",
    "alp": "alp",
    "tla": "tla",
    "trades": "trades",
    "atat": "atat",
    "fast": "atat",
    "released_cifar10": "released_cifar10",
    "released_cifar100": "released_cifar100",
}


def _recipe(method):
    return importlib.import_module(f"configs.{method}").get_config()


def _config(**overrides):
    values = base.get_config()
    overrides = {k.replace("__", "."): v for k, v in overrides.items()}
    values.update_from_flattened_dict(overrides)
    return run_config.resolve(values)


class ResolveTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.product(
        method=[*_RECIPES], dataset=["cifar10", "cifar100", "digits"]
    )
    def test_every_recipe_is_valid_on_every_data_set(self, method, dataset):
        values = _recipe(method)
        values.dataset = dataset
        config = run_config.resolve(values)
        run_checks.validate(config)
        defense = build.build_defense(config)
        expected = atat.DEFENSES[_RECIPES[method]]
        self.assertIsInstance(defense, expected)

    def test_every_defense_has_a_recipe(self):
        self.assertCountEqual(atat.DEFENSES, {*_RECIPES.values()})

    @parameterized.parameters(
        ("madry", atat.AdversarialTraining(clean_weight=0)),
        ("trades", compared.TRADES(robust_weight=6)),
        ("tla", compared.TLA(2.0, 1e-3, 0.03, 0.0)),
        ("fast", atat.ATAT(1, 1)),
    )
    def test_what_recipes_say(self, method, expected):
        config = run_config.resolve(_recipe(method))
        self.assertEqual(build.build_defense(config), expected)

    @parameterized.parameters("released_cifar10", "released_cifar100")
    def test_the_released_codes_protocol(self, method):
        """Its network, a teacher, and a student from random weights."""
        config = run_config.resolve(_recipe(method))
        self.assertEqual(config.backbone.name, "madry_wide_resnet")
        self.assertEqual(config.student_start, "random")
        self.assertTrue(run_config.needs_teacher(config))
        teacher = run_config.teacher_config(config)
        self.assertEqual(teacher.backbone, config.backbone)

    def test_the_papers_protocol(self):
        """§4.1, and λ1 = λ2 = 1."""
        config = _config()
        self.assertEqual(
            build.build_attack(config),
            linf.LinfAttack(8 / 255, 2 / 255, 7, random_start=True),
        )
        self.assertEqual(build.build_defense(config), atat.ATAT(1, 1))
        self.assertEqual(
            (config.backbone.depth, config.backbone.width), (34, 10)
        )
        self.assertEqual(
            (config.batch_size, config.optimizer.momentum), (128, 0.9)
        )
        self.assertEqual(config.optimizer.weight_decay, 2e-4)
        self.assertEqual(
            list(build.build_columns(config)),
            ["clean", "fgsm", "ifgsm20", "pgd7", "pgd20"],
        )
        self.assertEqual(
            list(build.build_columns(_config(dataset="cifar100"))),
            ["clean", "fgsm", "ifgsm20", "pgd10", "pgd20"],
        )

    def test_what_is_set_is_kept(self):
        config = _config(dataset="digits", num_epochs=3)
        self.assertEqual(config.num_epochs, 3)
        self.assertEqual(config.backbone.depth, 10)

    @parameterized.parameters(*_RECIPES)
    def test_small_recipe(self, method):
        config = run_config.resolve(small.get_config(method))
        run_checks.validate(config)
        self.assertEqual(config.defense.name, _RECIPES[method])
        self.assertEqual(config.backbone.depth, 10)

    @parameterized.parameters(*ours.DEFENSES)
    def test_variant_of_our_setting(self, variant):
        config = run_config.resolve(ours.get_config(variant))
        run_checks.validate(config)
        # The test images are for what has been chosen.
        self.assertEqual(config.evaluation.split, "validation")
        self.assertEqual(config.num_validation, 5000)
        named = {**ours.DEFENSES[variant]}
        named.pop("name")
        defense = build.build_defense(config)
        for field, value in named.items():
            self.assertEqual(getattr(defense, field), value)

    def test_small_recipe_of_an_unknown_method(self):
        with self.assertRaisesRegex(ValueError, "Received: 'aat'"):
            small.get_config("aat")

    def test_json_round_trip(self):
        config = _config()
        there = run_config.from_dict(run_config.to_dict(config))
        self.assertEqual(run_config.to_dict(there), run_config.to_dict(config))
        self.assertEqual(
            build.build_defense(there), build.build_defense(config)
        )

    @parameterized.parameters("standard", "alp", "atat")
    def test_an_archived_run_is_what_its_recipe_says(self, method):
        """Fields that it lacks have the values that it was trained with."""
        folder = runs.ROOT / f"results/small/cifar10/{method}/seed0"
        values = run_folder.read_json(folder / run_folder.CONFIG)
        there = run_config.from_dict(values)
        here = run_config.resolve(small.get_config(method))
        differing = run_config.differences(
            run_config.to_dict(here), run_config.to_dict(there)
        )
        # What tables set, and nothing else.
        differing = [d for d in differing if not d.startswith("teacher=")]
        self.assertEmpty(differing)

    def test_the_teachers_config(self):
        config = _config(dataset="digits", defense__layers=("features",))
        teacher = run_config.teacher_config(config)
        self.assertEqual(teacher.num_epochs, config.teacher_num_epochs)
        self.assertFalse(run_config.needs_teacher(teacher))
        run_checks.validate(teacher)
        self.assertEqual(teacher.backbone, config.backbone)

    @parameterized.parameters("cifar10", "digits")
    def test_the_teacher_is_what_the_standard_recipe_trains(self, dataset):
        values = _recipe("standard")
        values.dataset = dataset
        self.assertEqual(
            run_config.to_dict(run_config.resolve(values)),
            run_config.to_dict(
                run_config.teacher_config(_config(dataset=dataset))
            ),
        )


class ValidateTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ({"seed": -1}, r"seed in \[0, 2"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"num_epochs": 0}, "num_epochs >= 1"),
        ({"checkpoint_every_steps": -1}, "checkpoint_every_steps >= 0"),
        ({"attention_panels": -1}, "attention_panels >= 0"),
        ({"student_start": "teachr"}, "Did you mean 'teacher'"),
        ({"precision": "float16"}, "precision among float32, mixed_bfloat16"),
        ({"optimizer__schedule": "step"}, "among cosine, one_cycle, piecewise"),
        ({"optimizer__peak_at": 1.0}, r"peak_at in \(0, 1\)"),
        ({"optimizer__ema_statistics": "averaged"}, "ema > 0.*statistics"),
        ({"evaluation__weights": "ema"}, "ema > 0.*averaged weights"),
        ({"evaluation__weights": "lsat"}, "Did you mean 'last'"),
        ({"evaluation__split": "train"}, "split among test, validation"),
        ({"optimizer__learning_rate": 0.0}, "learning_rate > 0"),
        ({"optimizer__momentum": 1.0}, r"momentum in \[0, 1\)"),
        ({"optimizer__ema": 1.5}, r"ema in \[0, 1\)"),
        ({"optimizer__decay_at": (0.9, 0.75)}, "decay_at as ascending"),
        ({"optimizer__decay_at": (0.5, 1.5)}, "decay_at as ascending"),
        ({"attack__epsilon": 8.0}, r"epsilon in \(0, 1\]"),
        ({"attack__epsilon": 0.0}, r"epsilon in \(0, 1\]"),
        ({"attack__step_size": -0.1}, "step_size > 0"),
        ({"attack__num_steps": 0}, "num_steps >= 1"),
        ({"guard": "halt"}, "guard among off, rollback, stop"),
        ({"guard_share": 1.0}, r"guard_share in \(0, 1\)"),
        ({"attack__name": "pdg"}, "a training attack.*Did you mean 'pgd'"),
        (
            {"attack__name": "n_fgsm", "attack__num_steps": 1},
            "num_steps > 1.*validates n_fgsm",
        ),
        (
            {"attack__name": "fgsm_rs", "attack__random_start": False},
            "random_start=True, as fgsm_rs",
        ),
        ({"evaluation__attacks": ("pdg20",)}, "Did you mean 'pgd20'"),
        ({"evaluation__attacks": ()}, "at least one attack"),
        ({"defense__name": "atta"}, "Did you mean 'atat'"),
        ({"defense__name": "at"}, "a field of AdversarialTraining among clean"),
        ({"defense__attention_weight": -1.0}, "attention_weight >= 0"),
        ({"defense__score": "centered"}, "Did you mean 'centred'"),
        ({"backbone__name": "wide_resent"}, "Did you mean 'wide_resnet'"),
        ({"backbone__depth": 29}, "6n .* Received: depth=29"),
        ({"backbone__width": 0}, "width >= 1"),
        ({"dataset": "cifar1O"}, "Received: 'cifar1O'"),
    )
    def test_refuses(self, overrides, message):
        with self.assertRaisesRegex(InputError, message):
            run_checks.validate(_config(**overrides))


class AttackTest(parameterized.TestCase, tf.test.TestCase):
    @parameterized.parameters(
        ("pgd", linf.LinfAttack(8 / 255, 2 / 255, 7)),
        ("trades", for_training.KLAttack(8 / 255, 2 / 255, 7)),
        ("fgsm_rs", linf.LinfAttack(8 / 255, 10 / 255, 1)),
        ("n_fgsm", for_training.NoiseFGSM(8 / 255, 8 / 255, 1, noise=2.0)),
    )
    def test_names(self, name, attack):
        config = _config(attack__name=name)
        self.assertEqual(build.build_attack(config), attack)
        # Whatever trains, PGD(7) chooses the best epoch.
        self.assertEqual(
            build.build_validation_attack(config),
            linf.LinfAttack(8 / 255, 2 / 255, 7),
        )

    def test_a_config_from_before_names_is_pgd(self):
        values = run_config.to_dict(_config())
        del values["attack"]["name"]
        self.assertEqual(
            build.build_attack(run_config.from_dict(values)),
            linf.LinfAttack(8 / 255, 2 / 255, 7),
        )

    @parameterized.parameters("pgd", "fgsm_rs", "n_fgsm")
    def test_trades_is_refused_another_attack(self, name):
        values = _recipe("trades")
        values.attack.name = name
        with self.assertRaisesRegex(
            InputError, "maximises kl_divergence for TRADES"
        ):
            run_checks.validate(run_config.resolve(values))

    @parameterized.parameters(
        ("pgd", "off"),
        ("trades", "off"),
        ("fgsm_rs", "stop"),
        ("n_fgsm", "stop"),
    )
    def test_one_step_attacks_are_guarded(self, name, guard):
        self.assertEqual(_config(attack__name=name).guard, guard)
        chosen = _config(attack__name=name, guard="rollback")
        self.assertEqual(chosen.guard, "rollback")
        self.assertEqual(run_config.teacher_config(chosen).guard, "off")
        self.assertEqual(run_config.teacher_config(chosen).attack.name, "pgd")

    def test_nothing_to_guard(self):
        values = _recipe("standard")
        values.guard = "stop"
        with self.assertRaisesRegex(InputError, "guard=off for a defense"):
            run_checks.validate(run_config.resolve(values))

    def test_columns_keep_their_step_size(self):
        (column,) = build.build_columns(
            _config(attack__name="n_fgsm"), ["pgd20"]
        )["pgd20"]
        self.assertEqual(column.attack, linf.pgd(8 / 255, 2 / 255, 20))


class BuildTest(tf.test.TestCase):
    spec = datasets.SPECS["digits"]

    def test_piecewise_schedule(self):
        """0.1 until 75 % of 2 epochs × 10 steps, then 0.01, from 90 % 0.001."""
        config = _config(num_epochs=2)
        schedule = training_build.build_optimizer(config, 10)._learning_rate
        rates = [float(schedule(step)) for step in (0, 15, 16, 18, 19)]
        self.assertAllClose(rates, [0.1, 0.1, 0.01, 0.01, 0.001])

    def test_cosine_schedule(self):
        """cos from 0.1 to 0: half way ½ · 0.1."""
        config = _config(num_epochs=2, optimizer__schedule="cosine")
        schedule = training_build.build_optimizer(config, 10)._learning_rate
        rates = [float(schedule(step)) for step in (0, 10, 20)]
        self.assertAllClose(rates, [0.1, 0.05, 0.0])

    def test_one_cycle_schedule(self):
        """0 to 0.1 over the first 8 of 20 steps, and back to 0."""
        config = _config(num_epochs=2, optimizer__schedule="one_cycle")
        schedule = training_build.build_optimizer(config, 10)._learning_rate
        rates = [float(schedule(step)) for step in (0, 4, 8, 14, 20, 21)]
        self.assertAllClose(rates, [0.0, 0.05, 0.1, 0.05, 0.0, 0.0])
        copy = training_build.OneCycle.from_config(schedule.get_config())
        self.assertAllClose(copy(tf.constant(14)), 0.05)

    def test_classifier_decay_is_the_released_one(self):
        config = _config(dataset="digits")
        classifier = build.build_classifier(config, self.spec)
        regularizer = classifier.get_layer("stem").kernel_regularizer
        self.assertAllClose(regularizer.l2, 1e-4)

    def test_precision_is_the_models_own(self):
        config = _config(dataset="digits", precision="mixed_bfloat16")
        classifier = build.build_classifier(config, self.spec)
        stem = classifier.get_layer("stem")
        self.assertEqual(stem.dtype_policy.name, "mixed_bfloat16")
        self.assertEqual(keras.config.dtype_policy().name, "float32")

    def test_synchronised_batch_norm(self):
        config = _config(dataset="digits", sync_batch_norm=True)
        classifier = build.build_classifier(config, self.spec)
        self.assertTrue(classifier.get_layer("features_norm").synchronized)


if __name__ == "__main__":
    tf.test.main()
