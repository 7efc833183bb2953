"""The folder of a report: one takes the place of another, and nothing that is not a report's is
touched.
"""

from pathlib import Path

import pytest

from engine.errors import RunDirectoryError, StoreError
from evaluators.report.folder import check_out, replace_report

KNOWN = {"tables/a.csv", "tables/b.csv", "figures/a.svg"}
INDEX = b'<!DOCTYPE html><meta name="generator" content="xsample report">'


def write(out: Path, *names: str, index: bytes = INDEX) -> None:
    check_out(out, KNOWN)
    replace_report(out, {name: name.encode() for name in names}, index, KNOWN)


def files(out: Path) -> set[str]:
    return {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}


def test_a_report_is_written_with_its_folders(tmp_path: Path) -> None:
    write(tmp_path / "new" / "out", "tables/a.csv", "figures/a.svg")
    assert files(tmp_path / "new" / "out") == {"tables/a.csv", "figures/a.svg", "index.html"}


def test_what_the_new_report_lacks_is_removed_and_foreign_files_stay(tmp_path: Path) -> None:
    write(tmp_path, "tables/a.csv", "tables/b.csv")
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "tables" / "mine.csv").write_text("kept")
    write(tmp_path, "tables/b.csv", "figures/a.svg")
    assert files(tmp_path) == {
        "tables/b.csv",
        "figures/a.svg",
        "index.html",
        "mine.txt",
        "tables/mine.csv",
    }


def test_what_an_older_version_linked_to_is_removed(tmp_path: Path) -> None:
    links = b'<a href="tables/old_name.csv"><a href="tables/../kept.csv"><a href="tables/Kept.csv">'
    write(tmp_path, index=INDEX + links)
    for name in ("tables/old_name.csv", "kept.csv", "tables/Kept.csv"):
        (tmp_path / name).write_text("")
    write(tmp_path)
    assert files(tmp_path) == {"index.html", "kept.csv", "tables/Kept.csv"}


def test_a_report_that_was_cut_short_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, "tables/a.csv", "tables/b.csv")
    (tmp_path / "index.html").unlink()
    write(tmp_path, "tables/a.csv")
    assert files(tmp_path) == {"tables/a.csv", "index.html"}


def test_a_page_that_cannot_be_written_leaves_the_old_page(tmp_path: Path) -> None:
    write(tmp_path, "tables/a.csv")
    (tmp_path / "tables" / "b.csv").mkdir()
    with pytest.raises(StoreError, match=r"tables/b\.csv cannot be written"):
        replace_report(tmp_path, {"tables/b.csv": b""}, b"new", KNOWN)
    assert (tmp_path / "index.html").read_bytes() == INDEX


@pytest.mark.parametrize(
    "name", ["index.html", "notes.txt", "tables/mine.csv", "figures/deep/a.svg", "run.json"]
)
def test_a_folder_that_holds_something_else_is_refused_untouched(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("<html>my own page</html>")
    with pytest.raises(
        RunDirectoryError, match=r"--out .* is not empty and holds no report: give"
    ) as refused:
        check_out(tmp_path, KNOWN)
    assert "\n" not in str(refused.value) and files(tmp_path) == {name}


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(RunDirectoryError, match=r"is a file: give a folder"):
        check_out(tmp_path / "out", KNOWN)


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=r"cannot be used: .*; give another folder"):
        check_out(tmp_path / "file" / "out", KNOWN)
