"""docs/api.md: all of the public classes is described there, as it is in the code."""

import ast
import inspect
import re

import pytest

import vidtwin_gen
from tests.docs.pages import read

PAGE = read("docs/api.md")
OURS = {"vidtwin_gen", "autoencoder", "pipelines"}
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def sections(text, level):
    """The text under each heading of this level, by the heading."""
    _, *parts = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)
    return {name.strip("`"): body for name, body in zip(parts[::2], parts[1::2], strict=True)}


def public_members(public_class):
    """Name: member, of the class and of those of its bases that are ours."""
    bases = [base for base in public_class.__mro__ if base.__module__.split(".")[0] in OURS]
    members = {name: member for base in reversed(bases) for name, member in vars(base).items()}
    return {
        name: inspect.unwrap(getattr(public_class, name)) if not isinstance(member, property) else member
        for name, member in members.items()
        if (isinstance(member, (property, classmethod)) or inspect.isfunction(member))
        and (name == "__call__" or not name.startswith("_"))
    }


def as_written(function):
    """Each parameter as the page has it: its name, and its default where it has one."""
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in ("self", "cls") and parameter.kind not in VARIADIC:
            required = parameter.default is parameter.empty
            yield f"`{name}`" if required else f"`{name}={parameter.default!r}`"


def missing_from(page, class_name):
    """What the section of a class should have and has not."""
    body = sections(page, 2).get(class_name, "")
    of_methods = sections(body, 3)
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", of_methods.get("For subclasses", ""), re.MULTILINE))
    public_class = getattr(vidtwin_gen, class_name)
    members = {"Constructor": public_class} | public_members(public_class)
    for name, member in members.items():
        if isinstance(member, property):
            missing = [] if f"`{name}`" in body else [f"`{name}`"]
        else:
            text = of_methods.get(name, rows.get(name, body if name == "Constructor" else None))
            missing = [name] if text is None else [word for word in as_written(member) if word not in text]
        yield from (f"{class_name}, {name}: {word}" for word in missing)


@pytest.mark.parametrize("class_name", vidtwin_gen.__all__)
def test_all_that_is_public_is_described(class_name):
    assert list(missing_from(PAGE, class_name)) == []


@pytest.mark.parametrize("class_name", vidtwin_gen.__all__)
def test_nothing_is_described_that_does_not_exist(class_name):
    headings = set(sections(sections(PAGE, 2)[class_name], 3)) - {"Constructor", "For subclasses"}
    assert headings <= public_members(getattr(vidtwin_gen, class_name)).keys()


def test_what_is_missing_is_found():
    for described, name in (
        ("`sample_posterior=False`", "AutoencoderVidTwin, forward: `sample_posterior=False`"),
        ("### `mix`", "VidTwinPipeline, mix: mix"),
        ("`guidance_scale=4.0`", "VidTwinPipeline, __call__: `guidance_scale=4.0`"),
        ("`num_steps`", "VidTwinPipeline, denoise: `num_steps`"),
        ("`null_class`", "LatentTransformer, null_class: `null_class`"),
    ):
        assert described in PAGE
        assert name in list(missing_from(PAGE.replace(described, ""), name.split(",")[0]))


def test_models_are_made_with_named_arguments():
    """Those that were given by position diffusers' `from_config` passes over."""
    code = ast.parse("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)))
    calls = [node for node in ast.walk(code) if isinstance(node, ast.Call)]
    made = [call for call in calls if ast.unparse(call.func) == "LatentTransformer"]
    assert made and not any(call.args for call in made)
