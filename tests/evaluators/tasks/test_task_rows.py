"""Rows of local files as they are written, and files that nobody should have to read."""

import gzip
import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config.run_config import RunConfig
from engine.errors import TaskError, XsampleError
from evaluators.tasks import registry
from evaluators.tasks.sources import local, resolve
from evaluators.tasks.sources.local import MAX_FILES, read_path
from tests.support.paths import ROOT

AS_WRITTEN = [
    "073",
    "NA",
    "None",
    "1e5",
    "True",
    "2024-01-31",
    " x ",
    "",
    "1,000",
    'say "so"',
    "a\nb",
    "{}",
    "1.0",
]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def cells(path: Path) -> list[dict[str, Any]]:
    return [row.cells for table in read_path(path).tables for row in table]


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def test_csv_cells_are_the_text_that_stands_there(tmp_path: Path) -> None:
    file = write(
        tmp_path, "a.csv", "n,cell\n" + "".join(f"1,{quoted(text)}\n" for text in AS_WRITTEN)
    )
    assert cells(file) == [{"n": "1", "cell": text} for text in AS_WRITTEN]


def test_json_values_keep_their_type_row_by_row(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "a.jsonl",
        '{"a": 73}\n{"a": "073"}\n{"a": 73.0, "b": [1]}\n{"a": true}\n{"a": "2024-01-31"}\n',
    )
    assert cells(file) == [
        {"a": 73},
        {"a": "073"},
        {"a": 73.0, "b": [1]},
        {"a": True},
        {"a": "2024-01-31"},
    ]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_file_that_is_too_long_is_refused_however_small_it_is_packed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MAX_BYTES", 1 << 20)
    content = b"a" * (5 << 20)
    file = write(tmp_path, name, gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(TaskError, match="is longer than"):
        read_path(file)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "A.CSV"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_byte_order_mark_line_ends_and_gzip_change_nothing(
    tmp_path: Path, name: str, newline: str, mark: str
) -> None:
    content = f'{mark}a,b{newline}1,"x{newline}y"{newline}{newline}é,\u2028'.encode()
    file = write(tmp_path, name, gzip.compress(content) if name.endswith("gz") else content)
    assert cells(file) == [{"a": "1", "b": "x\ny"}, {"a": "é", "b": "\u2028"}]


@pytest.mark.parametrize(
    "content",
    ['\ufeff{"a": 1}\r\n\r\n{"b": 2}', '[{"a": 1},\n {"b": 2}]', '\n\n [{"a":1},{"b":2}]\n'],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson"])
def test_json_is_lines_of_objects_or_one_array_of_them(
    tmp_path: Path, name: str, content: str
) -> None:
    assert cells(write(tmp_path, name, content)) == [{"a": 1}, {"b": 2}]


def test_a_number_that_is_none_counts_as_no_value(tmp_path: Path) -> None:
    assert cells(write(tmp_path, "a.jsonl", '{"a": NaN, "b": 1e999}')) == [
        {"a": None, "b": float("inf")}
    ]


def test_parquet_keeps_numbers_and_structs(tmp_path: Path) -> None:
    rows = [
        {"a": 73, "b": [{"role": "user", "content": "x"}], "c": {"d": "073"}},
        {"a": None, "b": [], "c": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert cells(tmp_path / "a.parquet") == rows


def test_a_row_is_found_again_by_the_line_that_it_starts_in(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", 'a\n"x\ny"\n\nz\n')
    assert [row.where for row in read_path(file).tables[0]] == [
        f"{file}, line 2",
        f"{file}, line 5",
    ]
    file = write(tmp_path, "a.jsonl", '\n{"a":1}\n\n{"a":2}')
    assert [row.where for row in read_path(file).tables[0]] == [
        f"{file}, line 2",
        f"{file}, line 4",
    ]
    file = write(tmp_path, "a.json", '[{"a":1},{"a":2}]')
    assert [row.where for row in read_path(file).tables[0]] == [f"{file}, row 1", f"{file}, row 2"]


def test_a_saved_data_set_is_read_with_and_without_splits(tmp_path: Path) -> None:
    one, two = (datasets.Dataset.from_list([{"a": number}]) for number in (1, 2))
    one.save_to_disk(str(tmp_path / "one"))
    assert cells(tmp_path / "one") == [{"a": 1}]
    datasets.DatasetDict({"part1": one, "part2": two}).save_to_disk(str(tmp_path / "both"))
    assert cells(tmp_path / "both") == [{"a": 1}, {"a": 2}]


def test_a_folder_is_all_its_data_files_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, "b.csv", "a\n1\n")
    write(tmp_path, "data/c.jsonl", '{"a": 2}')
    pq.write_table(pa.table({"a": [3]}), tmp_path / "data" / "d-00000-of-00001.parquet")
    for name in (
        "README.md",
        "dataset_infos.json",
        ".hidden.csv",
        ".cache/x.csv",
        "__pycache__/x.csv",
        "run.py",
    ):
        write(tmp_path, name, "raise SystemExit")
    assert cells(tmp_path) == [{"a": "1"}, {"a": 2}, {"a": 3}]


def test_a_split_called_test_is_read_alone_and_that_is_said(tmp_path: Path) -> None:
    for name in ("test", "train"):
        write(tmp_path, f"data/{name}-00000-of-00001.csv", f"a\n{name}\n")
    assert cells(tmp_path) == [{"a": "test"}]
    (note,) = read_path(tmp_path).notes
    assert note.endswith(
        "read 'data/test-00000-of-00001.csv', left out 'data/train-00000-of-00001.csv'"
    )
    table = datasets.Dataset.from_list([{"a": 1}])
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / "saved"))
    assert read_path(tmp_path / "saved").notes == [
        f"{tmp_path / 'saved'}: read 'test', left out 'train'"
    ]


@pytest.mark.parametrize(
    "name", ["a[1]*?.csv", "zip::b/a.csv", "hf:/c/a.csv", "-a.csv", "a%20b #1;$(x).csv", "ü\t.csv"]
)
def test_a_file_may_be_called_anything(tmp_path: Path, name: str) -> None:
    assert cells(write(tmp_path, name, "a\n1\n")) == [{"a": "1"}]


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "empty.csv": ("", " is empty"),
    "blank.csv": ("\n\n  \n", " is empty"),
    "empty.csv.gz": (gzip.compress(b""), " is empty"),
    "empty.jsonl": ("", " is empty"),
    "empty.parquet": ("", " is empty"),
    "latin.csv": ("é".encode("latin-1"), " cannot be read: it is not UTF-8 text"),
    "utf16.jsonl": ('{"a":1}'.encode("utf-16"), " cannot be read: it is not UTF-8 text"),
    "garbage.csv": (bytes(range(256)) * 9, " cannot be read: it is not UTF-8 text"),
    "not.csv.gz": ("a\n1\n", " cannot be read: it is no gzip file"),
    "cut.csv.gz": (gzip.compress(b"a\n1\n" * 99)[:-9], " cannot be read: it is no gzip file"),
    "garbage.parquet": (bytes(range(256)) * 9, " cannot be read: "),
    "footer.parquet": (b"PAR1" + bytes(99) + b"\xff\xff\xff\x7fPAR1", " cannot be read: "),
    "long.csv": ("a,b\n1,2\n1,2,3\n", ", line 3 has 3 cells, the header 2"),
    "short.csv": ("a,b\n\n1\n", ", line 3 has 1 cells, the header 2"),
    "open.csv": ('a,b\n1,2\n1,"2\n3,4\n', ", line 3: not CSV: unexpected end of data"),
    "quote.csv": ('a,b\n1,"2"3\n', ", line 2: not CSV: ',' expected after '\"'"),
    "twice.csv": ("a,b,a\n1,2,3\n", ": two columns are called 'a'"),
    "huge.csv": ('a\n"' + "x" * 200_000 + '"\n', ", line 2: not CSV: field larger"),
    "broken.jsonl": ('{"a": 1}\n{"a": \n', ", line 2: not JSON: Expecting value"),
    "array.json": ('[{"a": 1},\n{"a": ]', ", line 2: not JSON: Expecting value"),
    "pretty.json": ('{\n "a": 1\n}', ", line 1: not JSON: Expecting property name"),
    "number.jsonl": ("1\n", ", line 1 is no JSON object {...}, but a int"),
    "strings.json": ('["a"]', ", row 1 is no JSON object {...}, but a str"),
    "deep.jsonl": ("[" * 100_000, ", line 1: not JSON: "),
    "digits.jsonl": ('{"a": ' + "9" * 5_000 + "}", ", line 1: not JSON: "),
    "task.py": ("raise SystemExit", ": the name of a task file must end in .csv, "),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_cannot_be_read_is_refused_in_one_line_that_names_it(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content, message = HOSTILE[name]
    file = write(tmp_path, name, content)
    with pytest.raises(TaskError) as error:
        read_path(file)
    assert str(error.value).startswith(f"{file}{message}")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert capfd.readouterr() == ("", "")


def test_a_name_with_a_line_break_still_gives_a_message_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"a\\nb\.csv, line 2 has 1 cells"):
        read_path(write(tmp_path, "a\nb.csv", "a,b\n1\n"))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s.csv"))
        for name in ("pipe.csv", "s.csv"):
            with pytest.raises(TaskError, match="is neither a file nor a folder"):
                read_path(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_one_may_not_read_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", "a\n1\n")
    file.chmod(0)
    with pytest.raises(TaskError, match="cannot be read: Permission denied"):
        read_path(file)


def test_a_folder_without_data_or_with_too_much_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="holds no CSV, JSONL or Parquet file"):
        read_path(tmp_path)
    for number in range(MAX_FILES + 1):
        (tmp_path / f"{number}.csv").touch()
    with pytest.raises(TaskError, match="holds more than 1,000 data files"):
        read_path(tmp_path)


def test_a_broken_saved_data_set_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "state.json", "{}")
    write(tmp_path, "dataset_info.json", "{}")
    with pytest.raises(TaskError, match=f"^{tmp_path} cannot be read: "):
        read_path(tmp_path)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet", "a.csv.gz"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.binary(max_size=200)
    | st.text('{}[]",:\n\rproblemanswer\\ué0', max_size=60).map(str.encode)
)
def test_any_bytes_give_a_task_or_an_error_of_ours(
    tmp_path: Path, name: str, content: bytes
) -> None:
    file = str(write(tmp_path, name, b"problem,answer\n" + content if name == "a.csv" else content))
    try:
        task_set = registry.find_task_set(file)
        task_set.load(task_set, RunConfig(task=file))
    except XsampleError as error:
        assert "\n" not in str(error)


@settings(max_examples=30, deadline=None)
@given(place=st.integers(0, 2_000), byte=st.integers(0, 255))
def test_a_parquet_file_with_one_byte_changed_gives_rows_or_an_error_of_ours(
    place: int, byte: int
) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"problem": ["a", "b"], "answer": [1, 2]}), buffer)
    content = bytearray(buffer.getvalue())
    content[place % len(content)] = byte
    with TemporaryDirectory() as folder:
        file = write(Path(folder), "a.parquet", bytes(content))
        try:
            read_path(file)
        except XsampleError as error:
            assert "\n" not in str(error)


def test_reading_leaves_nothing_behind_says_nothing_and_imports_no_torch(tmp_path: Path) -> None:
    write(tmp_path, "in/a.csv", "a\n1\n")
    write(tmp_path, "in/b.jsonl.gz", gzip.compress(b'{"a": 2}'))
    pq.write_table(pa.table({"a": [3]}), tmp_path / "in" / "c.parquet")
    datasets.Dataset.from_list([{"a": 4}]).save_to_disk(str(tmp_path / "saved"))
    write(tmp_path, "bad/a.parquet", b"PAR1" * 9)
    code = f"""
import sys
from pathlib import Path
from engine.errors import TaskError
from evaluators.tasks.sources.local import read_path
folder = Path({str(tmp_path)!r})
tables = [table for name in ("in", "saved") for table in read_path(folder / name).tables]
rows = [row for table in tables for row in table]
assert [row.cells for row in rows] == [{{"a": "1"}}, {{"a": 2}}, {{"a": 3}}, {{"a": 4}}]
try:
    read_path(folder / "bad")
except TaskError:
    assert "torch" not in sys.modules
"""
    places = {
        name: str(tmp_path / name.lower())
        for name in ("HOME", "HF_HOME", "TMPDIR", "XDG_CACHE_HOME")
    }
    for place in places.values():
        Path(place).mkdir()
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, **places},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path for place in places.values() for path in Path(place).rglob("*")] == []


def read(place: str) -> Any:
    return resolve.read(place, "task", "problem, answer")


def test_an_existing_path_wins_over_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "org/name/a.csv", "a\n1\n")
    monkeypatch.chdir(tmp_path)
    assert [row.cells for row in read("org/name").tables[0]] == [{"a": "1"}]
    assert not resolve.is_hub_id("org/name.csv") and resolve.is_hub_id("org/name")


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.csv", "a\n1\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(read("~/a.csv").tables[0]) == 1


def test_a_missing_file_is_named_with_the_nearest_that_is_there(tmp_path: Path) -> None:
    write(tmp_path, "problems.csv", "a\n1\n")
    with pytest.raises(
        TaskError,
        match=r"problem\.csv': there is no such file or folder \(did you mean 'problems\.csv'\?\)",
    ):
        read(str(tmp_path / "problem.csv"))
    with pytest.raises(TaskError, match=r"a\.csv': there is no such file, and no such folder"):
        read(str(tmp_path / "nowhere" / "a.csv"))


@pytest.mark.parametrize(
    "place",
    [
        "https://example.org/a.csv",
        "s3://bucket/a.parquet",
        "zip://a.csv::/tmp/b.zip",
        "hf://datasets/org/name",
        "a::b.csv",
    ],
)
def test_urls_are_refused(place: str) -> None:
    with pytest.raises(TaskError, match="URLs are not read; download it"):
        read(place)


@pytest.mark.parametrize(
    "place",
    [
        "",
        "a/b/c",
        "../x/y.csv",
        "~nobody-of-that-name/a.csv",
        "a\0.csv",
        "x" * 5_000 + ".csv",
        "buckets/name",
        "org/..",
        "org/na me",
        "-x/y",
        "ü/x",
        "/dev/null",
        "/dev/zero",
        "\x1b[31m/x",
    ],
)
def test_what_is_no_place_is_an_error_of_one_line(place: str) -> None:
    with pytest.raises(TaskError) as error:
        read(place)
    assert str(error.value).isprintable()
