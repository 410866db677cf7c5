"""What is known of models is found again, and never in the way."""

import logging
from pathlib import Path

import pytest
from msgspec import structs

from plait.fleet import probes
from plait.protocol import Facts, Probed, ProbeKey

KEY = ProbeKey(
    model="0f" * 16,
    library="1.0; 2.0; AVX = 1",
    cache_types=("f16", "f16"),
    rope=(0.0, 0.0),
    n_threads=(2, 2),
    n_ubatch=512,
    n_slots=8,
)
KNOWN = Probed(KEY, Facts(widths=(1, 2), classes=((2,), (1,)), blocks=True, seconds=0.5))


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    probes.save(KNOWN, tmp_path)
    assert probes.load(KEY.model, tmp_path) == (KNOWN,)


def test_nothing_is_known_of_others(tmp_path: Path) -> None:
    probes.save(KNOWN, tmp_path)
    assert probes.load("f0" * 16, tmp_path) == ()
    assert probes.load(KEY.model, tmp_path / "elsewhere") == ()


def test_each_key_has_its_facts(tmp_path: Path) -> None:
    other = Probed(structs.replace(KEY, library="another"), Facts())
    probes.save(KNOWN, tmp_path)
    probes.save(other, tmp_path)
    assert probes.load(KEY.model, tmp_path) == (other, KNOWN)


def test_what_is_measured_again_replaces(tmp_path: Path) -> None:
    again = Probed(KEY, Facts())
    probes.save(KNOWN, tmp_path)
    probes.save(again, tmp_path)
    assert probes.load(KEY.model, tmp_path) == (again,)


def test_what_came_less_far_replaces_nothing(tmp_path: Path) -> None:
    """Two workers may measure at the same time, and one of them may have less of it."""
    steps = [Probed(KEY, Facts(n_steps=n, cut_short="too slow")) for n in range(4)]
    for probed, expected in [(steps[0], ()), (steps[2], (steps[2],)), (steps[1], (steps[2],)), (steps[3], (steps[3],))]:
        probes.save(probed, tmp_path)
        assert probes.load(KEY.model, tmp_path) == expected
    probes.save(KNOWN, tmp_path)
    probes.save(steps[3], tmp_path)
    assert probes.load(KEY.model, tmp_path) == (KNOWN,)


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    for n in range(probes.N_KEPT + 2):
        probes.save(Probed(structs.replace(KEY, n_slots=n), Facts()), tmp_path)
    kept = [known.key.n_slots for known in probes.load(KEY.model, tmp_path)]
    assert kept == list(range(probes.N_KEPT + 1, 1, -1))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("data", [b"", b"[", b'[{"key":1}]', b"\xff\xfe"])
def test_a_bad_file_is_said_and_written_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    path = tmp_path / f"{KEY.model}.json"
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING, "plait.fleet"):
        assert probes.load(KEY.model, tmp_path) == ()
    assert str(path) in caplog.text
    probes.save(KNOWN, tmp_path)
    assert probes.load(KEY.model, tmp_path) == (KNOWN,)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, "plait.fleet"):
        probes.save(KNOWN, tmp_path / "file")
    assert "cannot be" in caplog.text


def test_a_digest_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no digest"):
        probes.load("../etc/passwd", tmp_path)


def test_the_cache_lies_where_the_user_says() -> None:
    assert probes.default_dir({"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c/plait/probes")
    assert probes.default_dir({"HOME": "/h"}) == Path("/h/.cache/plait/probes")
