"""Whatever is put in: settings, names, keys and rows end as what they should be, or as an error in words."""

import json
import math
import string
from contextlib import suppress
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.config import GROUPS, ConfigError, Settings, load_settings
from pipeline.library import video_id
from pipeline.rows import DECODED, LISTED, SCORED, TENSOR, from_table, to_table
from pipeline.tables import part_name

# The same examples every time, and no clock: a busy machine is no failure.
settings.register_profile("bounded", deadline=None, derandomize=True, database=None)
settings.load_profile("bounded")

words = st.text(alphabet=string.ascii_letters + string.digits + "_.", min_size=1, max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KNOWN = [f"{group}.{name}" for group in GROUPS for name in type(getattr(Settings(), group)).model_fields]


@given(st.sampled_from(KNOWN) | words, values)
def test_any_setting_is_taken_or_refused_in_words(path: str, value: object) -> None:
    try:
        made = load_settings(None, {path: value}, ())
    except ConfigError:
        return
    # What was taken is itself a file of settings, and the same ones.
    again = json.loads(made.model_dump_json())
    assert Settings.model_validate(again) == made or "nan" in repr(made)


@given(st.text(max_size=40))
def test_any_assignment_is_taken_or_refused_in_words(text: str) -> None:
    with suppress(ConfigError):
        load_settings(None, {}, (text,))


@settings(max_examples=50)
@given(values)
def test_any_file_of_settings_is_taken_or_refused_in_words(tmp_path_factory, tree: object) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with suppress(ConfigError):
        load_settings(str(file), {}, ())


@given(st.lists(st.text(max_size=30), min_size=1, max_size=3))
def test_no_part_of_a_path_leads_out_of_its_folder(parts: list[str]) -> None:
    try:
        joined = storage.join("/data/out", *parts)
    except ValueError:
        return
    path = PurePosixPath(joined)
    assert path.is_relative_to("/data/out")
    assert ".." not in path.parts
    assert len(path.parts) > 3
    assert joined.isprintable() or not any(ord(letter) < 32 for letter in joined)


@given(st.text())
def test_what_is_shown_of_a_key_is_one_line(uri: str) -> None:
    assert not set(storage.shown(uri)) & {chr(code) for code in (*range(32), 127)}


@given(st.lists(st.text(), min_size=1, max_size=5), st.text())
def test_names_of_parts_are_safe_and_do_not_depend_on_order(ids: list[str], key: str) -> None:
    name = part_name(ids, key)
    assert name == part_name(ids[::-1], key)
    assert storage.join("out", name).endswith(name)
    assert name.isalnum()


@given(st.lists(st.tuples(st.text(), st.none() | st.text(), st.integers(0)), min_size=2, unique=True))
def test_different_objects_have_different_ids_that_are_safe_names(objects: list[tuple]) -> None:
    ids = {video_id(*each) for each in objects}
    assert len(ids) == len(objects)
    assert all(each.isalnum() for each in ids)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**31), 2**31 - 1)
TYPES = {
    pa.string(): texts,
    pa.int32(): numbers,
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.binary(): st.binary(max_size=20),
    pa.large_binary(): st.binary(max_size=20),
}


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    kind = draw(st.sampled_from(["u1", "f2", "f4", "f8", "i4"]))
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=4)))
    data = draw(st.binary(min_size=(size := math.prod(shape) * np.dtype(kind).itemsize), max_size=size))
    return np.frombuffer(data, kind).reshape(shape)


def values_of(kind: pa.DataType) -> st.SearchStrategy:
    if kind == TENSOR:
        return st.none() | arrays()
    if pa.types.is_struct(kind):
        fields = {field.name: values_of(field.type) for field in kind}
        return st.none() | st.fixed_dictionaries(fields)
    if pa.types.is_list(kind):
        return st.none() | st.lists(values_of(kind.value_type), max_size=2)
    return st.none() | TYPES.get(kind, st.none())


def rows_of(schema: pa.Schema) -> st.SearchStrategy:
    return st.lists(
        st.fixed_dictionaries({field.name: values_of(field.type) for field in schema}), min_size=1, max_size=3
    )


@pytest.mark.parametrize("schema", [LISTED, DECODED, SCORED], ids=["listed", "decoded", "scored"])
def test_rows_come_back_from_tables_as_they_went_in(schema: pa.Schema) -> None:
    @settings(max_examples=25)
    @given(rows_of(schema))
    def check(rows: list[dict]) -> None:
        table = to_table(rows, schema)
        for before, after in zip(rows, from_table(table.slice(0)), strict=True):
            for field in schema:
                if field.type == TENSOR and before[field.name] is not None:
                    assert after[field.name].dtype == before[field.name].dtype
                    assert after[field.name].shape == before[field.name].shape
                    assert after[field.name].tobytes() == before[field.name].tobytes()
                elif not pa.types.is_nested(field.type):
                    assert after[field.name] == before[field.name]

    check()
