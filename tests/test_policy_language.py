"""Beyond one file of plain values: what policies inherit, take from the environment, and may leave short."""

from __future__ import annotations

from pathlib import Path

import pytest

from devsynth_providers import FREE, Policy, PolicyError
from devsynth_providers.policy import Access, TimeOfDay, When
from devsynth_providers.policy.file import load_policy, packaged_names, parse_policy, resolved

MODELS = "models: {a: {provider: stub, tags: [fast]}, b: {provider: stub, tags: [fast, own]}, c: {provider: stub}}\n"
ALL = "rules: [{name: all, models: a}]\n"
BASE = """
models:
  a: {provider: stub, quality: 0.5, price: {input_usd_per_1m: 1, output_usd_per_1m: 2}}
  b: {provider: stub, price: free}
rules:
  - {name: hard, when: {complexity: {above: 0.5}, task: design}, models: [a, b], prefer: best}
  - {name: all, models: [b]}
timeouts: {connect_s: 1, total_s: 10}
"""


def write(folder: Path, **files: str) -> Path:
    """Write *files*, and return the path of the first."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder / f"{next(iter(files))}.yaml"


def told(text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, file="p", environment=environment or {})
    return str(caught.value).splitlines()


def told_of(path: Path) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    return str(caught.value).replace(f"{path.parent}/", "").splitlines()


def parsed(text: str, **environment: str) -> Policy:
    return parse_policy(text, environment=environment)


class TestExtends:
    def test_mappings_are_merged_key_by_key_and_null_takes_a_key_away(self, tmp_path: Path) -> None:
        own = (
            "extends: base.yaml\nmodels: {a: {quality: null, price: {input_usd_per_1m: 3}}}\ntimeouts: {total_s: 20}\n"
        )
        policy = load_policy(write(tmp_path, own=own, base=BASE), fill_in=False)
        price = policy.models["a"].price
        assert price is not None
        assert (price.input_usd_per_1m, price.output_usd_per_1m, policy.models["a"].quality) == (3, 2, None)
        assert (policy.timeouts.connect_s, policy.timeouts.total_s, policy.name) == (1, 20, "own")

    def test_a_rule_of_the_same_name_changes_the_inherited_and_others_go_before(self, tmp_path: Path) -> None:
        own = """
extends: base.yaml
rules:
  - {name: first, when: {task: x}, models: [a]}
  - {name: hard, models: [b], when: {task: null}}
  - {name: second, when: {task: y}, models: [a]}
"""
        policy = load_policy(write(tmp_path, own=own, base=BASE))
        assert [rule.name for rule in policy.rules] == ["first", "second", "hard", "all"]
        hard = policy.rules[2]
        assert (hard.models, hard.prefer, hard.when.task) == (("b",), "best", ())
        assert hard.when.complexity is not None

    def test_a_whole_inherited_model_can_be_taken_away(self, tmp_path: Path) -> None:
        own = "extends: base.yaml\nmodels: {a: null}\nrules: [{name: hard, models: [b]}]"
        assert list(load_policy(write(tmp_path, own=own, base=BASE)).models) == ["b"]

    def test_packaged_policies_can_be_extended_also_by_a_text_without_a_file(self) -> None:
        policy = parsed("extends: balanced\nrules: [{name: first, when: {task: x}, models: [gpt-4o]}]")
        assert policy.rules[0].name == "first"
        assert len(policy.rules) > 1

    def test_what_is_wrong_is_told_with_the_file_in_which_it_stands(self, tmp_path: Path) -> None:
        base = BASE.replace("quality: 0.5", "quality: 5").replace("{connect_s: 1", "{conect_s: 1")
        own = "extends: base.yaml\nmodels: {b: {colour: red}}\nrules: [{name: hard, prefer: no}]"
        found = told_of(write(tmp_path, own=own, base=base))
        assert [line.split(" ")[0] for line in found] == [
            "own.yaml:2:14:",
            "own.yaml:3:30:",
            "base.yaml:3:32:",
            "base.yaml:8:12:",
        ]

    def test_the_error_is_about_the_file_of_its_first_problem(self, tmp_path: Path) -> None:
        path = write(tmp_path, own="extends: base.yaml", base=BASE.replace("quality: 0.5", "quality: 5"))
        with pytest.raises(PolicyError) as caught:
            load_policy(path)
        assert (caught.value.file, caught.value.line) == (str(tmp_path / "base.yaml"), 3)

    def test_a_circle_is_refused_with_its_files(self, tmp_path: Path) -> None:
        (line,) = told_of(write(tmp_path, a="extends: b.yaml", b="extends: ./a.yaml"))
        assert line == "b.yaml:1:10: extends: a circle: a.yaml → b.yaml → a.yaml"

    def test_a_chain_of_five_is_read_and_one_of_six_refused(self, tmp_path: Path) -> None:
        files = {f"f{number}": f"extends: f{number + 1}.yaml" for number in range(1, 5)}
        assert load_policy(write(tmp_path, **files, f5=BASE)).rules
        (line,) = told_of(write(tmp_path, **files, f5="extends: f6.yaml", f6=BASE))
        assert "f5.yaml:1:10: extends: a chain of more than 5 files: f1.yaml → f2.yaml" in line

    @pytest.mark.parametrize(
        ("extends", "problem"),
        [
            (
                "balancd",
                "own.yaml:1:10: extends: there is no such file, and no packaged policy of this name; did you mean",
            ),
            ("[a, b]", "own.yaml:1:10: extends: it names one other file, or a packaged policy"),
            ("", "own.yaml:1:9: extends: it names one other file, or a packaged policy"),
            ("${DEVSYNTH_BASE}", "own.yaml:1:10: extends: no variables here"),
            ('"a\\0b"', "own.yaml:1:10: extends: can not be read: this is not the name of a file"),
            ("x" * 5000, "own.yaml:1:10: extends: can not be read: File name too long"),
            ("folder", "own.yaml:1:10: extends: can not be read: Is a directory"),
            ("list.yaml", "list.yaml:1:1: a policy is a mapping with the keys models and rules"),
            ("broken.yaml", "broken.yaml:1:9: not YAML: anchors and aliases are not allowed"),
            ("new.yaml", "new.yaml:1:10: version should be 1, not 2"),
        ],
    )
    def test_what_can_not_be_extended_is_told(self, tmp_path: Path, extends: str, problem: str) -> None:
        (tmp_path / "folder").mkdir()
        files = {"list": "- a", "broken": "models: &x {}", "new": f"version: 2\n{MODELS}{ALL}"}
        found = told_of(write(tmp_path, own=f"extends: {extends}\nversion: 1", **files))
        assert any(line.startswith(problem) for line in found), found

    def test_a_key_that_nobody_can_take_away_from_is_not_lost(self, tmp_path: Path) -> None:
        (line,) = told_of(write(tmp_path, own="extends: base.yaml\nmodels: {new: null}", base=BASE))
        assert line == "own.yaml:2:15: new should be a mapping, not null"


class TestVariables:
    def test_a_variable_is_put_into_texts_and_never_changes_the_structure(self) -> None:
        text = "variables: [HOST]\nmodels: {a: {provider: stub, model: '${HOST}:${HOST}', base_url: $$x}}\n" + ALL
        model = parsed(text, HOST="a: [}\n- *x ${NO}").models["a"]
        assert model.model == "a: [}\n- *x ${NO}:a: [}\n- *x ${NO}"
        assert model.base_url == "$x"

    def test_a_dollar_alone_is_a_dollar(self) -> None:
        assert parsed("models: {a: {provider: stub, model: costs $5 $}}\n" + ALL).models["a"].model == "costs $5 $"

    @pytest.mark.parametrize(
        "name", ["DEVSYNTH_X", "LOCAL_MODEL_PATH", "LMSTUDIO_MODEL", "LM_STUDIO_Y", "OPENAI_MODEL"]
    )
    def test_some_names_need_not_be_listed(self, name: str) -> None:
        text = f"models: {{a: {{provider: stub, model: '${{{name}}}'}}}}\n{ALL}"
        assert parsed(text, **{name: "v"}).models["a"].model == "v"

    def test_a_default_is_for_a_variable_that_is_not_set_or_empty(self) -> None:
        text = "variables: {HOST: there}\nmodels: {a: {provider: stub, model: '${HOST}'}}\n" + ALL
        assert parsed(text).models["a"].model == "there"
        assert parsed(text, HOST="").models["a"].model == "there"
        assert parsed(text, HOST="here").models["a"].model == "here"

    def test_the_variables_of_all_files_may_be_used_in_each(self, tmp_path: Path) -> None:
        own = "extends: base.yaml\nvariables: [X]\nmodels: {a: {model: '${X}${Y}${Z}'}}"
        base = "variables: {X: x, Y: y, Z: z}\n" + BASE
        over = "extends: own.yaml\nvariables: {Z: zz}"
        path = write(tmp_path, over=over, own=own, base=base)
        assert load_policy(path, environment={"X": "1"}).models["a"].model == "1yzz"

    @pytest.mark.parametrize(
        ("variables", "value", "problem"),
        [
            ("[]", "${HOST}", "p:2:40: HOST is not a variable that this policy may read; list it: variables: [HOST]"),
            ("[HOST]", "${HOST}", "p:2:40: the variable HOST is not set; set it, or give it a default: variables: {HOST: …}"),
            ("[]", "${OPENAI_MODEL_X}", "OPENAI_MODEL_X is not a variable that this policy may read"),
            ("[]", "${DEVSYNTH_API_KEY}", "p:2:40: the variable DEVSYNTH_API_KEY looks like a secret; a policy holds no"),
            ("[GITHUB_TOKEN]", "x", "p:1:13: the variable GITHUB_TOKEN looks like a secret"),
            ("[]", "${", "p:2:40: a ${ that does not end: a variable is written ${NAME}; for a plain ${, write $${"),
            ("[]", "${a b}", "p:2:40: 'a b' is not the name of a variable"),
            ("[]", "${}", "p:2:40: '' is not the name of a variable"),
            ("[a b]", "x", "p:1:13: 'a b' is not the name of a variable"),
            ("3", "x", "p:1:12: variables are a list of names, or a mapping from names to defaults"),
            ("[[a]]", "x", "p:1:12: variables are a list of names, or a mapping from names to defaults"),
            ("{PORT: 80}", "x", 'p:1:19: the default of PORT is a text; write "80"'),
        ],
    )  # fmt: skip
    def test_a_variable_that_can_not_be_had_is_told(self, variables: str, value: str, problem: str) -> None:
        text = f"variables: {variables}\nmodels: {{a: {{provider: stub, model:    '{value}'}}}}\n{ALL}"
        (line,) = told(text)
        assert problem in line

    def test_keys_take_no_variables(self) -> None:
        found = told("models: {'${DEVSYNTH_X}': {provider: stub}, a: {provider: stub}}\n" + ALL)
        assert found == ["p:1:10: variables stand in values, not in keys"]

    def test_a_variable_is_never_a_number(self) -> None:
        text = "rules: [{name: x, models: a, max_cost_usd: '${DEVSYNTH_X}'}]\nmodels: {a: {provider: stub}}"
        assert told(text, {"DEVSYNTH_X": "1"}) == [
            'p:1:44: max_cost_usd should be a valid number, not "1"; a variable is text: numbers are written out'
        ]


class TestDefaults:
    def test_rules_that_do_not_say_a_key_have_the_default(self) -> None:
        rules = "[{name: x, models: a, when: {task: t}, max_cost_usd: 3}, {name: y, models: a, prefer: best}]"
        models = "models: {a: {provider: stub, price: free}}\n"
        policy = parsed(f"defaults: {{max_cost_usd: 1, prefer: cheapest}}\n{models}rules: {rules}")
        assert [(rule.max_cost_usd, rule.prefer) for rule in policy.rules] == [(3, "cheapest"), (1, "best")]

    @pytest.mark.parametrize(
        ("defaults", "problem"),
        [
            ("{max_cost: 1}", "p:1:12: unknown key 'max_cost'; write max_cost_usd: 1"),
            ("{prefer: fast}", "p:1:20: prefer should be 'listed', 'cheapest', 'fastest' or 'best'"),
            ("{min_quality: .nan}", "p:1:25: .nan is not a number to count with"),
            ("{when: {task: x}}", "p:1:12: 'when' has no default: each rule says its own"),
            ("[a]", "p:1:11: defaults is a mapping with keys of rules"),
        ],
    )
    def test_a_mistake_in_them_is_told_once_where_it_stands(self, defaults: str, problem: str) -> None:
        rules = "rules: [{name: x, models: a, when: {task: t}}, {name: y, models: a, first_token_s: 5, prefer: best}]"
        (line,) = told(f"defaults: {defaults}\n{MODELS}{rules}")
        assert line.startswith(problem)


class TestTags:
    @pytest.mark.parametrize(
        ("models", "expected"),
        [
            ("tag:fast", "ab"),
            ("['tag:fast', c]", "abc"),
            ("[c, 'tag:own', 'tag:fast']", "cba"),
            ("[b, 'tag:fast']", "ba"),
            ("['tag:fast', b]", "ab"),
        ],
    )
    def test_a_tag_stands_for_all_models_that_have_it_in_their_order(self, models: str, expected: str) -> None:
        assert parsed(f"{MODELS}rules: [{{name: x, models: {models}}}]").rules[0].models == tuple(expected)

    def test_a_tag_that_no_model_has_is_told_with_the_one_that_was_meant(self) -> None:
        assert told(f"{MODELS}rules: [{{name: x, models: [a, 'tag:fats']}}]") == [
            "p:2:31: no model has the tag 'fats'; did you mean 'fast'?"
        ]
        assert "there are: fast, own" in told(f"{MODELS}rules: [{{name: x, models: 'tag:q'}}]")[0]

    def test_no_model_is_named_as_tags_are(self) -> None:
        assert told("models: {'tag:x': {provider: stub}}\nrules: [{name: x, models: 'tag:x'}]")[0].startswith(
            "p:1:10: a model's name does not begin with tag:"
        )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_cost: 1", "unknown key 'max_cost'; write max_cost_usd: 1"),
        ("max_cost_cents: 5", "write max_cost_usd: 0.05"),
        ("max_latency: 5", "write max_latency_s: 5"),
        ("max_latency_ms: 500", "write max_latency_s: 0.5"),
        ("max_latency: 500ms", "write max_latency_s: 0.5"),
        ("max_latency: soon", "write max_latency_s, in seconds"),
        ("max_latency_minutes: 2", "write max_latency_s: 120"),
        ("timeout_ms: 2500", "write max_latency_s: 2.5"),
        ("first_token_ms: 1", "write first_token_s: 0.001"),
        ("join_embeddings_ms: 5", "write join_embeddings_s: 0.005"),
        ("join_embeddings_s: 5 ms", "write join_embeddings_s: 0.005"),
        ("join_embeddings_s: 5", "if these are milliseconds, write join_embeddings_s: 0.005"),
        ("first_token: true", "write first_token_s, in seconds"),
        ("max_latency_s: 5s", "write max_latency_s: 5"),
        ("max_latency_s: 2 min", "write max_latency_s: 120"),
        ("max_latency_s: 5 parsecs", 'max_latency_s should be a valid number, not "5 parsecs"'),
        ("max_latency_s: 100000", "if these are milliseconds, write max_latency_s: 100"),
        ("max_cost_usd: $0.05", "write max_cost_usd: 0.05"),
        ("max_cost_usd: '0.05'", "write max_cost_usd: 0.05"),
        ("max_cost_usd: '0,05'", "write max_cost_usd: 0.05"),
        ("max_cost_usd: '1,000.50'", "write max_cost_usd: 1000.5"),
        ("max_cost_usd: €3", 'max_cost_usd should be a valid number, not "€3"'),
        ("max_cost_usd: 5 ct", "write max_cost_usd: 0.05"),
        ("min_quality: 70", "write min_quality: 0.7"),
        ("min_quality: 70%", "write min_quality: 0.7"),
        ("min_quality: 700", "min_quality should be less than or equal to 1, not 700"),
    ],
)
def test_amounts_in_other_units_are_told_with_what_to_write(text: str, problem: str) -> None:
    (line,) = told(f"{MODELS}rules: [{{name: x, models: a, {text}}}]")
    assert line.endswith(problem)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("price: {input: 3, output: 15}", ["write input_usd_per_1m: 3", "write output_usd_per_1m: 15"]),
        ("price: {input_cost_per_token: 0.000003, output_usd_per_1m: 15}", ["write input_usd_per_1m: 3"]),
        ("context_window: 32k", ["write context_window: 32000"]),
        ("context_window: 1_000 tokens", ["write context_window: 1000"]),
        ("latency: {first_token_ms: 300, tokens_per_s: 25}", ["write first_token_s: 0.3"]),
        ("context_window: 99999999999999999999999999999999999999999", ["not a number to count with"]),
    ],
)
def test_so_are_those_of_models(model: str, found: list[str]) -> None:
    lines = told(f"models: {{a: {{provider: stub, {model}}}}}\n{ALL}")
    assert all(line.endswith(end) for line, end in zip(lines, found, strict=True)), lines


class TestResolved:
    def test_a_resolved_policy_is_the_same_policy_in_one_file(self, tmp_path: Path) -> None:
        own = """
extends: base.yaml
variables: {HOST: there}
defaults: {max_cost_usd: 1}
models: {a: {model: "${HOST}$$", tags: [x]}, c: {provider: stub, price: free}}
rules: [{name: hard, models: ["tag:x", c]}]
"""
        policy = load_policy(path := write(tmp_path, own=own, base=BASE))
        text = resolved(path)
        assert load_policy(write(tmp_path, other=text)) == policy
        assert policy.models["c"].price == FREE
        assert (policy.models["a"].model, policy.rules[0].models) == ("there$", ("a", "c"))
        assert "model: ${HOST}$$" in text
        assert not any(word in text for word in ("extends", "defaults", "tag:"))
        assert resolved(tmp_path / "other.yaml") == text

    @pytest.mark.parametrize("name", packaged_names())
    def test_so_are_the_packaged_ones(self, tmp_path: Path, name: str) -> None:
        assert load_policy(write(tmp_path, other=resolved(name))) == load_policy(name)

    def test_dollars_in_the_names_of_models_stay(self, tmp_path: Path) -> None:
        text = "models: {a$$b$: {provider: stub, tags: [x]}}\nrules: [{name: all, models: 'tag:x'}]"
        path = write(tmp_path, own=text)
        assert load_policy(write(tmp_path, other=resolved(path))).rules == load_policy(path).rules

    def test_a_wrong_one_is_not_shown(self, tmp_path: Path) -> None:
        with pytest.raises(PolicyError):
            resolved(write(tmp_path, own="extends: balanced\nrulse: []"))


class TestNames:
    def test_words_of_python_are_keys_as_any_other(self) -> None:
        when = "{not: {task: t, any: [{role: dev}, {not: {tags: q}}]}, time_of_day: {from: 22:00, days: mon}}"
        rules = f"rules: [{{name: x, models: a, when: {when}}}, {{name: y, models: a}}]"
        assert parsed(MODELS + rules).rules[0].when == When(
            not_=When(task=("t",), any=(When(role=("dev",)), When(not_=When(tags=("q",))))),
            time_of_day=TimeOfDay(from_="22:00", days=("mon",)),
        )

    def test_but_not_as_python_spells_them(self) -> None:
        rules = "rules: [{name: x, models: a, when: {not_: {task: t}, time_of_day: {from_: '1:00'}}}]"
        found = "\n".join(told(MODELS + rules))
        assert "unknown key 'not_'; did you mean 'not'?" in found
        assert "unknown key 'from_'; did you mean 'from'?" in found

    def test_roles_and_tags_in_access(self) -> None:
        policy = parsed(f"{MODELS}{ALL}access: [{{role: intern, models: 'tag:own'}}]")
        assert policy.access == (Access(role=("intern",), models=("b",)),)

    def test_access_is_appended_to_and_tests_are_not_inherited(self, tmp_path: Path) -> None:
        base = BASE + "access: [{role: intern, models: b}]\ntests: [{prompt: x, expect: {rule: nowhere}}]"
        policy = load_policy(write(tmp_path, own="extends: base.yaml\naccess: [{role: dev}]", base=base))
        assert ([each.role for each in policy.access], policy.tests) == ([("intern",), ("dev",)], ())

    def test_a_price_to_assume_is_a_mapping_or_a_word(self) -> None:
        assert told(f"{MODELS}{ALL}unknown_price: 3") == [
            "p:3:16: unknown_price should be 'refuse', or a mapping, not 3"
        ]
        assert told(f"{MODELS}{ALL}unknown_price: {{asume: 1}}") == [
            "p:3:17: unknown key 'asume'; did you mean 'assume'?"
        ]

    def test_weights_that_weigh_nothing_are_told(self) -> None:
        (line,) = told(f"{MODELS}rules: [{{name: x, models: a, prefer: {{quality: 0}}}}]")
        assert line == "p:2:38: prefer: of the weights quality, cost and latency, one must be above 0"
