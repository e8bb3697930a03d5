"""A study's trials, its server, its answers and its report.

The tests check what the server gives away, that no answer is lost, and what the report says of
subjects whose abilities are known.
"""

import collections
import io
import json
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from sr3_jax import cli
from sr3_jax.errors import UserError
from sr3_jax.images import arrays
from sr3_jax.study import report, site
from sr3_jax.study import study as studies
from sr3_jax.study.answers import Answers
from tests.study.conftest import Client

# -- making one


def test_a_study_holds_every_image_re_encoded_alike_without_metadata(make, folders):
    folder, study = make()
    assert (len(study.stems), study.methods) == (12, ["flat", "noisy"])
    assert studies.load(folder) == study
    sizes = set()
    for path in (folder / "images").rglob("*.png"):
        sizes.add(path.stat().st_size)
        assert Image.open(path).info == {}
    assert len(sizes) == 1  # a flat image is as large as a noisy one
    np.testing.assert_array_equal(
        arrays.read(folder / "images/reference/sub/03.png", 3).pixels,
        arrays.read(folders / "real/sub/03.png", 3).pixels,
    )


def test_what_does_not_belong_together_is_listed_and_nothing_is_begun(make, folders):
    (folders / "flat/sub/03.jpg").unlink()
    arrays.write(folders / "flat/sub/extra.png", np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(UserError, match=r"flat has no sub/03; .*flat has sub/extra, of which"):
        make()
    arrays.write(folders / "noisy/sub/03.png", np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(
        UserError, match=r"03.png is 16×16 and .* is 32×32; a pair must have one size"
    ):
        make(methods=("noisy",))
    assert not (folders / "study").exists()
    with pytest.raises(UserError, match="is not a study"):
        studies.load(folders / "study")


def test_a_subject_sees_no_image_twice_and_there_must_be_enough_of_them(make):
    _, study = make(per_subject=50)
    assert study.per_subject == 8
    for subject in range(5):
        stems = [trial.stem for trial in studies.trials(study, subject)]
        assert len(set(stems)) == len(stems) == 12
    with pytest.raises(UserError, match="12 images; a study needs more than the 13"):
        make("other", training=6, catch=7)


def test_a_folder_with_something_in_it_is_left_alone(make):
    folder, _ = make()
    before = (folder / "study.json").read_bytes()
    with pytest.raises(UserError, match="study exists; give a new folder"):
        make()
    assert (folder / "study.json").read_bytes() == before


# -- trials


def test_subjects_share_out_images_methods_and_sides(make):
    _, study = make()
    seen, sides = collections.Counter(), []
    for subject in range(8):  # four rounds of two subjects
        trials = studies.trials(study, subject)
        assert trials == studies.trials(study, subject)
        assert [trial.kind for trial in trials[:2]] == ["training", "training"]
        main = [trial for trial in trials if trial.kind == "main"]
        assert len({trial.stem for trial in main}) == len(main) == 6
        assert sum(trial.kind == "catch" for trial in trials) == 2
        seen.update((trial.stem, trial.method) for trial in main)
        sides += [trial.real_left for trial in trials]
        assert sum(trial.real_left for trial in trials) == 5  # of ten
    assert set(seen.values()) == {2}  # each image by each method twice
    assert len(seen) == 24
    orders = {tuple(t.stem for t in studies.trials(study, subject)) for subject in range(8)}
    assert len(orders) == 8


# -- the server


def test_nothing_but_the_pixels_tells_which_image_is_real(make, serve):
    folder, study = make(task=1)
    client, [token, *_] = serve(folder, study)
    client.ask(f"s/{token}/agree", method="POST")
    kinds = set()
    for number, trial in enumerate(studies.trials(study, 0)):
        _, left, left_headers = client.ask(f"s/{token}/{number}/left")
        _, right, right_headers = client.ask(f"s/{token}/{number}/right")
        for headers in (left_headers, right_headers):
            headers.pop("date")
        assert left_headers == right_headers  # Content-Length among them
        assert left_headers["cache-control"] == "no-store"
        assert len(left) == len(right)
        assert client.ask(f"s/{token}/{number}/lr")[0] == 200
        brighter_left = np.mean(Image.open(io.BytesIO(left))) >= np.mean(
            Image.open(io.BytesIO(right))
        )
        if trial.method >= 0:
            assert brighter_left == trial.real_left
        kinds.add(trial.kind)
        _, body, _ = client.ask(f"s/{token}/{number}", {"left": True, "milliseconds": 5})
        assert json.loads(body) == ({"right": trial.real_left} if trial.kind == "training" else {})
    assert kinds == {"training", "main", "catch"}
    assert json.loads(client.ask(f"s/{token}/state")[1])["stage"] == "done"


def test_only_the_next_trial_of_a_known_subject_who_agreed_is_served_and_an_answer_counts_once(
    make, serve
):
    client, [token, other] = serve(*make())
    assert client.ask("s/guess/state")[0] == client.ask("s/guess")[0] == 404
    assert client.ask(f"s/{token}/0/left")[0] == 409  # no consent yet
    assert json.loads(client.ask(f"s/{token}/state")[1])["stage"] == "consent"
    client.ask(f"s/{token}/agree", method="POST")
    for number, status in ((0, 200), (1, 409)):
        assert client.ask(f"s/{token}/{number}/left")[0] == status
    assert client.ask(f"s/{token}/0/lr")[0] == 404  # task 2 does not show it
    answer = {"left": False, "milliseconds": 1e9}  # the page was left open for days
    for body in (
        {},
        [],
        {"left": 1, "milliseconds": 5},
        {"left": True, "milliseconds": -1},
        {"left": True, "milliseconds": 10**400},
        {"x": "y" * 2000},
        {"left": True, "milliseconds": "x"},
    ):
        assert client.ask(f"s/{token}/0", body)[0] in (400, 413)
    assert [client.ask(f"s/{token}/0", answer)[0] for _ in range(2)] == [200, 409]
    assert json.loads(client.ask(f"s/{token}/state")[1])["number"] == 1
    assert json.loads(client.ask(f"s/{other}/state")[1])["number"] == 0


def test_behind_a_proxy_the_address_that_subjects_see_is_answered_to(make):
    folder, _ = make()
    command = [
        sys.executable,
        "-m",
        "sr3_jax",
        "study",
        "serve",
        str(folder),
        "--port=0",
        "--subjects=1",
    ]
    with subprocess.Popen(
        [*command, "--url=https://study.example"], stdout=subprocess.PIPE, text=True
    ) as process:
        link = process.stdout.readline().strip()
        assert link.startswith("https://study.example/s/")
        process.stdout.readline()
        address = process.stdout.readline().split()[-1]
        token = link.rsplit("/", 1)[1]
        # Kept by the proxy, or not
        for host in ("study.example", address.removeprefix("http://").rstrip("/")):
            for origin, status in (("https://study.example", 204), ("https://evil.example", 403)):
                headers = {"Host": host, "Origin": origin}
                request = urllib.request.Request(
                    f"{address}s/{token}/agree", b"", headers, method="POST"
                )
                try:
                    assert urllib.request.urlopen(request, timeout=30).status == status
                except urllib.error.HTTPError as error:
                    assert error.code == status  # noqa: PT017
        process.send_signal(signal.SIGTERM)


def test_after_a_kill_every_answer_is_there_and_the_subject_goes_on(make):
    folder, _ = make()
    command = [
        sys.executable,
        "-m",
        "sr3_jax",
        "study",
        "serve",
        str(folder),
        "--port=0",
        "--subjects=1",
    ]
    for round_ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            link = process.stdout.readline().strip()
            base, token = link.rsplit("s/", 1)
            client = Client(base)
            client.ask(f"s/{token}/agree", method="POST")
            assert json.loads(client.ask(f"s/{token}/state")[1])["number"] == 3 * round_
            for number in range(3 * round_, 3 * round_ + 3):
                assert (
                    client.ask(f"s/{token}/{number}", {"left": True, "milliseconds": 1})[0] == 200
                )
            process.send_signal(signal.SIGKILL if round_ == 0 else signal.SIGTERM)
        assert process.returncode == (-9 if round_ == 0 else 0)
    with sqlite3.connect(folder / "answers.sqlite") as database:
        assert database.execute("SELECT COUNT(*) FROM answers").fetchone() == (6,)
    assert (folder / "links.txt").read_text().count("/s/") == 1


# -- without a server


def saved(path, token, count, **changes):
    """What a subject's page saves, after `count` answers: always left."""
    answer = {
        "left": True,
        "milliseconds": 812.5,
        "shown": 1,
        "at": "2026-01-01T00:00:00Z",
    } | changes
    path.write_text(json.dumps({"token": token, "answers": [answer] * count}))
    return path


def test_an_exported_site_tells_what_is_real_for_the_practice_trials_alone(make, tmp_path):
    folder, study = make(task=1)
    answers = Answers(folder)
    tokens, size = site.export(tmp_path / "site", folder, study, answers, 2)
    assert tokens == answers.invite(2)
    files = [path for path in (tmp_path / "site").rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {"site", "page", *tokens}
    assert sum(path.stat().st_size for path in files) <= size < 10**7
    # Hosts treat names that begin with _ in their own way
    assert all(token.isalnum() for token in tokens)
    for subject, token in enumerate(tokens):
        trials = studies.trials(study, subject)
        for number, trial in enumerate(trials):
            for side, wanted in studies.images(folder, study, trial).items():
                assert (tmp_path / "site" / token / f"{number}-{side}.png").read_bytes() == wanted
        about = (tmp_path / "site" / token / "trials.js").read_text()
        found = json.loads(about[about.index("{") : about.rindex("}") + 1])
        assert found.pop("practice") == [trial.real_left for trial in trials[:2]]
        assert found == {
            "token": token,
            "total": 10,
            "training": 2,
            "task": 1,
            "question": studies.QUESTIONS[1],
            "seconds": 0.05,
        }
    for path in files:
        assert path.suffix in (".png", ".html", ".js", ".css")
        if path.suffix != ".png":
            assert not any(word in path.read_text() for word in ("flat", "noisy", "sub/"))
    assert (
        len(
            {path.stat().st_size for path in files if path.name.endswith(("left.png", "right.png"))}
        )
        == 1
    )
    with pytest.raises(UserError, match="site exists; give a new folder"):
        site.export(tmp_path / "site", folder, study, answers, 3)
    answers.close()


def test_answers_are_collected_once_and_contradictions_refused(make, tmp_path):
    folder, study = make()
    answers = Answers(folder)
    token, other = answers.invite(2)
    first, longer = (
        saved(tmp_path / "first.json", token, 4),
        saved(tmp_path / "longer.json", token, 10),
    )
    assert [site.collect(study, answers, file) for file in (first, first, longer, first)] == [
        4,
        0,
        6,
        0,
    ]
    assert answers.given(0) == 10
    kept = answers.all()
    assert [answer["stem"] for answer in kept] == [trial.stem for trial in studies.trials(study, 0)]
    assert {(a["chose_left"], a["milliseconds"], a["shown"], a["at"]) for a in kept} == {
        (1, 812.5, 1, "2026-01-01T00:00:00+00:00")
    }
    with pytest.raises(UserError, match=r"twice.json contradicts the answers of subject 0"):
        site.collect(study, answers, saved(tmp_path / "twice.json", token, 10, left=False))
    with pytest.raises(UserError, match="has 11 answers; a subject of this study has 10 trials"):
        site.collect(study, answers, saved(tmp_path / "more.json", other, 11))
    with pytest.raises(UserError, match="it has no subject abc"):
        site.collect(study, answers, saved(tmp_path / "who.json", "abc", 1))
    assert answers.all() == kept
    answers.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"left": 1},
        {"milliseconds": -1},
        {"milliseconds": "soon"},
        {"shown": 0},
        {"shown": None},
        {"at": 7},
        {"at": "=1"},
    ],
)
def test_a_file_that_is_none_of_answers_is_one_sentence(make, tmp_path, changes):
    folder, study = make()
    answers = Answers(folder)
    [token] = answers.invite(1)
    file = saved(tmp_path / "bad.json", token, 1, **changes)
    named = json.dumps({"token": "a\nsr3: b", "answers": []})
    surrogate = saved(tmp_path / "other.json", token, 1, at="\ud800").read_text()
    for text in (file.read_text(), "", "[]", '{"token": "a"}', "[" * 100_000, named, surrogate):
        file.write_text(text)
        with pytest.raises(UserError, match=r"bad.json is not a file of answers"):
            site.collect(study, answers, file)
    with pytest.raises(UserError, match=r"none.json cannot be read: No such file"):
        site.collect(study, answers, tmp_path / "none.json")
    assert answers.all() == []
    answers.close()


# -- the report


@pytest.mark.parametrize(
    ("chosen", "of", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (47, 100, 0.3751, 0.5671),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_intervals_are_the_published_ones(chosen, of, low, high):
    assert report.wilson(chosen, of) == pytest.approx((low, high), abs=1e-4)


def answered(study, ability):
    """Answers of subjects: ability[subject][method] is the chance to find the real image.

    Catch and training trials count as method -1.
    """
    rng, found = np.random.default_rng(1), []
    for subject, of_method in enumerate(ability):
        for number, trial in enumerate(studies.trials(study, subject)):
            right = rng.random() < of_method[trial.method]
            found.append(
                {
                    "subject": subject,
                    "number": number,
                    "kind": trial.kind,
                    "stem": trial.stem,
                    "method": trial.method,
                }
                | {
                    "real_left": trial.real_left,
                    "chose_left": trial.real_left == right,
                    "milliseconds": 900.0,
                }
                | {"shown": 1, "at": "2026-01-01T00:00:00+00:00"}
            )
    return found


def test_the_report_recovers_known_fool_rates_and_leaves_out_who_guesses(make, folders):
    _, study = make()
    good = {0: 0.9, 1: 0.6, -1: 1.0}
    guesser = {0: 0.5, 1: 0.5, -1: 0.0}
    results = report.analyse(study, answered(study, [good] * 60 + [guesser] * 5))
    assert (results["subjects"], len(results["excluded"])) == (60, 5)
    for name, rate in (("flat", 0.1), ("noisy", 0.4)):
        found = results["methods"][name]
        assert found["n"] == 180
        for low, high in (found["interval"], found["over_subjects"]):
            assert low < rate < high
            assert high - low < 0.2
        assert sum(image["n"] for image in found["images"].values()) == 180
    assert results["methods"]["noisy"]["median_seconds"] == 0.9
    text = report.table(results)
    assert "60 subjects, 360 trials" in text
    assert report.plot(results).shape[1] == 640


def test_the_command_creates_and_reports_and_says_what_is_missing(folders, capsys):
    where = [
        f"--reference={folders / 'real'}",
        f"--candidates=ours={folders / 'noisy'}",
        f"--output={folders / 'new'}",
    ]
    assert cli.main(["study", "create", *where, "--task=2", "--trials=4"]) == 0
    assert "12 images, ours; 4 pairs a subject" in capsys.readouterr().out
    assert cli.main(["study", "report", str(folders / "new")]) == 2
    assert "has no answers yet" in capsys.readouterr().err
    study, answers = studies.load(folders / "new"), Answers(folders / "new")
    answers.invite(1)
    for number, trial in enumerate(studies.trials(study, 0)):
        assert answers.record(0, number, trial, trial.real_left, 800.0)
        assert not answers.record(0, number, trial, trial.real_left, 800.0)
    answers.close()
    assert cli.main(["study", "report", str(folders / "new")]) == 0
    assert "| ours | 0.0% |" in capsys.readouterr().out
    made = {path.name for path in (folders / "new/report").iterdir()}
    assert made == {"report.json", "report.md", "fool_rates.png", "answers.csv"}
    assert (folders / "new/report/answers.csv").read_text().count("\n") == 1 + len(
        studies.trials(study, 0)
    )


def test_the_command_exports_and_collects(make, tmp_path, capsys):
    folder, _ = make()
    there = ["study", "export", str(folder), f"--output={tmp_path / 'site'}", "--subjects=2"]
    assert cli.main([*there, "--url=https://example.org/study/"]) == 0
    out = capsys.readouterr().out
    assert "pages of 2 subjects, 0 MB\ntheir links are in" in out
    links = (folder / "links.txt").read_text().splitlines()
    tokens = [link.split("/")[-2] for link in links]
    assert links == [f"https://example.org/study/{token}/index.html" for token in tokens]
    assert all((tmp_path / "site" / token / "9-right.png").exists() for token in tokens)
    assert cli.main(there) == 2
    assert "give a new folder" in capsys.readouterr().err
    good, bad = saved(tmp_path / "b.json", tokens[1], 10), saved(tmp_path / "a.json", "abc", 1)
    # One bad file does not stop the others
    assert cli.main(["study", "collect", str(folder), str(bad), str(good)]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("10 new answers; ")
    assert (err.count("\n"), "a.json is not of this study" in err) == (1, True)
    assert cli.main(["study", "collect", str(folder), str(good)]) == 0
    assert cli.main(["study", "report", str(folder)]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dance"], "study dance: there are create, serve, export, collect, report"),
        (["serve", "x", "--host=0.0.0.0"], "--host=0.0.0.0 needs --url"),
        (["serve", "x", "--url=https://a.example/path"], "must be an address without a path"),
        (["create", "x"], "study create: missing option '--reference'"),
        (["serve"], "study serve: missing argument 'STUDY'"),
        (["collect", "x"], "study collect: missing argument 'FILE…'"),
        (["export", "x"], "study export: missing option '--output'"),
        (
            ["export", "x", "--output=y", "--url=here"],
            "--url=here must be the address where the site will be",
        ),
        (["serve", "nowhere"], "nowhere is not a study"),
        (["create", "--task=2"], "study create: missing option '--reference'"),
        (
            ["create", "--reference=a", "--candidates=b", "--output=c", "--task=3"],
            "--task=3 must lie between 1 and 2",
        ),
        (["create", "--reference=a", "--candidates=b", "--output=c", "--task=1"], "give --lr=DIR"),
        (
            [
                "create",
                "--reference=a",
                "--candidates=b",
                "--candidates=z/b",
                "--output=c",
                "--task=2",
            ],
            "two methods are called 'b'",
        ),
        (
            ["create", "--reference=a", "--candidates=b", "--output=c", "--task=2"],
            "a is not a folder",
        ),
        (
            ["create", "--reference=a", "--candidates=b", "--output=c", "--task=2", "--seconds=0"],
            "--seconds=0",
        ),
    ],
)
def test_what_is_asked_for_wrongly_is_one_sentence(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
