"""Write what the tables show into the pages that say so: every comparison with its figures, from the rows themselves.

python scripts/write_findings.py

No page compares systems in words of its own, so none can go on saying what its table no longer shows; a test holds the
pages against the rows.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy import stats

from mcss.evaluation.report import Spread
from mcss.evaluation.results import MEAN_POSE
from mcss.experiments.paper import TABLE1, TABLE2, TABLE3, PaperRow
from mcss.experiments.pose_tables import AS_PRINTED, LONGER_VARIANT, PRETRAINED
from mcss.methods.registry import title_of
from write_table import write_between

ROOT = Path(__file__).parents[1]
Rows = Sequence[Mapping[str, Any]]

CONFIDENCE = 0.95
"""A difference is clear where it leaves out 0 with this confidence, by Student's t: three seeds are few."""
CLEAR_OF_ONE = 0.1
"""And from this share where a row has one seed: about as much as two runs of the baseline can lie apart."""


@dataclass(frozen=True)
class Measured:
    """A measure over the seeds of a row, in mm."""

    values: tuple[float, ...]
    networks: tuple[tuple[Any, ...], ...] = ()
    """What each was measured with; two rows may be two readings of the same networks."""
    fixed: bool = False
    """Whether a row has one value because seeds play no part in it."""

    def __str__(self) -> str:
        return Spread(self.values).text()

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return fmean(self.values)

    def against(self, other: "Measured") -> str:
        """Both values, and by how much this one is lower or higher."""
        change = self.mean / other.mean - 1
        words = _words(change)
        if words != "the same" and not self.clearly_differs(other):
            words += "; " + ("one seed cannot tell" if self.few(other) else "within the variation between seeds")
        return f"{self} against {other} mm ({words})"

    def few(self, other: "Measured") -> bool:
        """Whether one of the two has a single seed of several that could be."""
        return any(len(each.values) < 2 and not each.fixed for each in (self, other))

    def clearly_differs(self, other: "Measured") -> bool:
        """Whether the difference is more than what seeds make."""
        difference = abs(self.mean - other.mean)
        if self.few(other):
            return difference > CLEAR_OF_ONE * other.mean
        if self.networks and self.networks == other.networks:  # luck of the training is the same on both sides
            changes = [a - b for a, b in zip(self.values, other.values, strict=True)]
            return difference > _t(len(changes) - 1) * stdev(changes) / math.sqrt(len(changes))
        varied = [each for each in (self, other) if not each.fixed]
        squares = [stdev(each.values) ** 2 / len(each.values) for each in varied]
        if not any(squares):
            return difference > 0
        # Welch's test, whose degrees of freedom are those of Satterthwaite; a fixed value adds no variance.
        parts = [part**2 / (len(each.values) - 1) for part, each in zip(squares, varied, strict=True)]
        return difference > _t(sum(squares) ** 2 / sum(parts)) * math.sqrt(sum(squares))


def of(rows: Rows, measure: str = "n_mpjpe", **about: Any) -> Measured:
    """The measure of the rows that are about something, such as ``system="mcss", labels="S1"``."""
    about.setdefault("labels", "S1")
    found = [row for row in rows if all(row.get(key, "") == value for key, value in about.items())]
    found = [row for row in found if row.get(measure) is not None]
    assert found, f"no row with {measure} and {about}"
    networks = [(row["system"].partition("+")[0], row["labels"], row.get("variant"), row.get("seed")) for row in found]
    fixed = all(row["system"] == MEAN_POSE for row in found)
    return Measured(tuple(row[measure] for row in found), tuple(networks), fixed)


def hit_at_1(rows: Rows, system: str, variant: str = "", labels: str = "S1") -> str:
    """How often the same instant is found first, over the seeds of a row."""
    return Spread(of(rows, "hit_at_1", system=system, variant=variant, labels=labels).values).text(2)


def printed(
    table: Iterable[PaperRow], system: str, measure: str = "n_mpjpe", labels: str = "S1", **about: Any
) -> float:
    """The one value that the paper prints."""
    wanted = {"system": system, "labels": labels, "points": False, **about}
    (value,) = (
        getattr(row, measure)
        for row in table
        if all(getattr(row, key) == value for key, value in wanted.items()) and getattr(row, measure) is not None
    )
    return float(value)


def paper_pair(ours: float, theirs: float) -> str:
    """What the paper prints for a pair; all its pairs here are of one data set."""
    return f"in the paper, on Human3.6M, {ours:.1f} against {theirs:.1f} ({_words(ours / theirs - 1)})"


def share_of_gap(few: float, ours: float, every: float) -> str:
    """How much of the gap between the errors with few labels and with all of them a system closes with few."""
    return f"{100 * (few - ours) / (few - every):.0f} %"


def _t(freedom: float) -> float:
    """Standard errors that a difference has to exceed, given the degrees of freedom."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


def _words(change: float) -> str:
    share = f"{100 * abs(change):.0f}"
    return "the same" if share == "0" else f"{share} % {'lower' if change < 0 else 'higher'}"


def bullets(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"* {line}" for line in lines)


BASELINE, MCSS = "baseline (L_pose only)", "MCSS"
CVPR18, ECCV18 = "Rhodin CVPR'18", "Rhodin ECCV'18"


def table1(read: "Read") -> str:
    """Table 1; a row that is not trained yet is left out."""
    rows, pa = read("table1"), "pa_mpjpe"

    measured = [row for row in rows if row.get("n_mpjpe") is not None]
    known = {(row["system"], row["labels"], row.get("variant", "")) for row in measured}

    def at(system: str, measure: str = "n_mpjpe", labels: str = "S1", variant: str = "") -> Measured:
        return of(rows, measure, system=system, labels=labels, variant=variant)

    baseline, mean_pose = at("supervised", pa), at("mean_pose", pa)
    lines = [
        f"MCSS and the baseline, N-MPJPE: {at('mcss').against(at('supervised'))}; "
        f"{paper_pair(printed(TABLE1, MCSS), printed(TABLE1, BASELINE))}."
    ]
    if ("mcss", "S1", AS_PRINTED) in known:
        lines.append(_as_printed(at("mcss", variant=AS_PRINTED), at("mcss"), at("supervised")))
    lines.append(
        f"Multi-view consistency and the baseline, PA-MPJPE: {at('rhodin_cvpr18', pa).against(baseline)}; "
        f"{paper_pair(printed(TABLE1, CVPR18, pa), printed(TABLE1, BASELINE, pa))}."
    )
    if ("rhodin_cvpr18", "S1", PRETRAINED) in known:
        starred = at("rhodin_cvpr18", pa, variant=PRETRAINED).against(at("mcss", pa))
        lines.append(
            "Multi-view consistency whose backbone was first trained on 2D joints, and MCSS, which sees none, "
            f"PA-MPJPE: {starred}."
        )
    maps = f"Skeleton maps and the baseline, PA-MPJPE: {at('chen_cvpr19', pa).against(baseline)}."
    if ("chen_cvpr19", "all", "") in known:
        maps += f" With all labels and with S1's: {at('chen_cvpr19', pa, 'all').against(at('chen_cvpr19', pa))}."
    lines += [
        f"{maps} The pose is read off a frozen point cloud that was learned without labels.",
        f"Novel-view synthesis and the canonical mean pose, PA-MPJPE: {at('rhodin_eccv18', pa).against(mean_pose)}; "
        f"and the baseline: {at('rhodin_eccv18', pa).against(baseline)}. MCSS and novel-view synthesis, PA-MPJPE: "
        f"{at('mcss', pa).against(at('rhodin_eccv18', pa))}; "
        f"{paper_pair(printed(TABLE1, MCSS, pa), printed(TABLE1, ECCV18, pa))}, where the second does not say that "
        "it is with ResNet-18.",
    ]
    if ("mcss", "all", "") in known:
        lines.append(
            "MCSS and the baseline with all labels, N-MPJPE: "
            f"{at('mcss', labels='all').against(at('supervised', labels='all'))}; the "
            "[main comparison](results.md#main-comparison) has more seeds."
        )
    return bullets(lines)


def _as_printed(theirs: Measured, ours: Measured, baseline: Measured) -> str:
    """What the loss and heads of the paper come to, beside those of the recipe and the baseline."""
    return (
        f"MCSS with the loss and heads as printed, and the baseline, N-MPJPE: {theirs.against(baseline)}; and MCSS as "
        f"in the recipe `fast`: {theirs.against(ours)}."
    )


def trials(read: "Read", tuning: str = "tuning", leave_out: Collection[str] = ()) -> str:
    """The settings that were tried for each system on the validation subject, and which of them were kept."""
    lines = [
        "| system | learning rate | other setting | first seed, mm | all seeds, mm | |",
        "|---|---|---|---|---|---|",
    ]
    for system, tried in read(tuning).items():
        for row in () if system in leave_out else tried:
            (swept,) = row.keys() - {"rate", "errors", "kept"}
            cells = (
                title_of(system),
                f"{row['rate']:g}",
                f"{swept.replace('_', ' ')} {row[swept]:g}",
                f"{row['errors'][0]:.1f}",
                str(Measured(tuple(row["errors"]))) if len(row["errors"]) > 1 else "–",
                "kept" if row["kept"] else "",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def beside_mediapipe(read: "Read") -> str:
    """Another program's landmarks, and MCSS on the same joints and images."""
    theirs, ours = (row for row in read("table1") if "12 joints" in row.get("variant", ""))
    pair = Measured((theirs["pa_mpjpe"],)).against(Measured((ours["pa_mpjpe"],)))
    images = theirs["variant"].removeprefix("12 joints, ").rpartition(", ")[0]
    return (
        f"PA-MPJPE of {theirs['system']} and of MCSS over the 12 joints of arms and legs, whose errors are larger than "
        f"those of all 16, in {images}: {pair}."
    )


def signals(read: "Read") -> str:
    """What each system makes of other views."""
    rows = read("signals")
    pairs = {
        "MCSS, with and without L_cnstr": (("mcss", ""), ("supervised", "MCSS without L_cnstr")),
        "Multi-view consistency, whose views must agree or need not": (
            ("rhodin_cvpr18", ""),
            ("rhodin_cvpr18", "views need not agree"),
        ),
        "Novel-view synthesis, of another view and of its own": (
            ("rhodin_eccv18", ""),
            ("rhodin_eccv18", "each view drawn from itself"),
        ),
        "Skeleton maps, of another view and of its own": (
            ("chen_cvpr19", ""),
            ("chen_cvpr19", "each view drawn from itself"),
        ),
    }

    def line(title: str, one: tuple[str, str], other: tuple[str, str]) -> str:
        first, second = ({"system": system, "variant": variant} for system, variant in (one, other))
        return (
            f"{title}: N-MPJPE {of(rows, **first).against(of(rows, **second))}, "
            f"PA-MPJPE {of(rows, 'pa_mpjpe', **first).against(of(rows, 'pa_mpjpe', **second))}."
        )

    return bullets(line(title, *pair) for title, pair in pairs.items())


OTHERS_TEXT = """\
* **Target pose** (Table 2). Global and canonical pose, N-MPJPE: {target}; {paper_target}. Global pose and
  canonical mean pose, PA-MPJPE: {target_mean}. Predicting the global pose requires knowing which camera took the
  image. The plain studio of this capture gives no clue, and the error is that of a mean pose or larger. The backgrounds
  of Human3.6M may give the camera away; that was not measured.
* **A view without labels** (Table 3), N-MPJPE on view 4 without its labels, MCSS and the baseline: {three};
  {paper_three}. Without that view's labels and with them: MCSS {mcss_three}, the baseline {baseline_three}, and with
  labels of two views alone {baseline_two}.
* **Distances** (Fig. 6). Spearman's ρ between distances in the embedding and differences of poses, images of one person
  in different views (by MPJPE): MCSS {rho_one[0]}, baseline {rho_one[1]}; images of everybody (by PA-MPJPE):
  {rho_all[0]} and {rho_all[1]}. Most of
  these pairs are far apart, while a search needs the nearest ones in order ([retrieval](results/retrieval.md)). Over
  the tenth of the pairs whose poses are most alike: one person {near_one[0]} and {near_one[1]}, everybody
  {near_all[0]} and {near_all[1]}.
* **Another capture** (Table 4, Sec. 6.3). People, rooms and cameras that were never seen, one seed, Mean-PA-MPJPE@10
  across subjects, after fine-tuning without labels and before: {moved}; oracle {oracle:.1f}."""


def others(read: "Read") -> str:
    """Tables 2 to 4, distances and Sec. 6.3."""
    poses, views, pa = read("table2"), read("table3"), "pa_mpjpe"
    cross = [row for row in read("generalisation") if row["case"] == "cross_subject" and row["k"] == 10]
    two, three, four = "labels of views 1, 2", "labels of views 1, 2, 3", "labels of views 1, 2, 3, 4"

    def left_out(system: str, labels: str) -> str:
        return of(views, system=system, variant=labels).against(of(views, system=system, variant=four))

    def rhos(part: str, measure: str) -> tuple[str, ...]:
        found = [row for row in read(part) if row["name"] == "different view"]
        return tuple(
            Spread(tuple(row[measure] for row in found if row["system"] == system)).text(2)
            for system in ("mcss", "supervised")
        )

    before = of(cross, "mean_pa_mpjpe", variant="as it came")
    after = of(cross, "mean_pa_mpjpe", variant="fine-tuned without labels", labels="none")
    return OTHERS_TEXT.format(
        target=of(poses, variant="global pose").against(of(poses, variant="canonical pose")),
        paper_target=paper_pair(
            printed(TABLE2, MCSS, note="global pose"), printed(TABLE2, MCSS, note="canonical pose, ResNet-18")
        ),
        target_mean=of(poses, pa, variant="global pose").against(
            of(read("table1"), pa, system="mean_pose", variant="")
        ),
        three=of(views, system="mcss", variant=three).against(of(views, system="supervised", variant=three)),
        mcss_three=left_out("mcss", three),
        baseline_three=left_out("supervised", three),
        baseline_two=left_out("supervised", two),
        paper_three=paper_pair(printed(TABLE3, MCSS, note=three), printed(TABLE3, BASELINE, note=three)),
        rho_one=rhos("fig6", "rho"),
        rho_all=rhos("distances", "rho"),
        near_one=rhos("fig6", "rho_near"),
        near_all=rhos("distances", "rho_near"),
        moved=after.against(before),
        oracle=fmean(row["oracle"] for row in cross),
    )


LABELS = {
    "S1": "one person's labels",
    "S1:0.1": "a tenth of one person's labels",
    "S1:0.05": "a twentieth of one person's labels",
}
"""The label budgets of the main comparison below everybody's, in words."""


def main_comparison(read: "Read") -> str:
    """The comparison of MCSS with its baseline, at every amount of labels."""
    rows = read("report")
    known = {(row["system"], row["labels"]) for row in rows}
    lines = []
    for labels, words in LABELS.items():
        if ("mcss", labels) in known and ("supervised", labels) in known:
            ours, theirs = (of(rows, system=system, labels=labels) for system in ("mcss", "supervised"))
            paper = f"; {paper_pair(*_in_the_paper('S1'))}" if labels == "S1" else ""
            lines.append(f"With {words}, MCSS and the baseline, N-MPJPE: {ours.against(theirs)}{paper}.")
        if ("mcss+fitted", labels) in known:
            read_off, head = of(rows, system="mcss+fitted", labels=labels), of(rows, system="mcss", labels=labels)
            lines.append(f"With {words}, MCSS after `mcss remember` and with its pose head: {read_off.against(head)}.")
    as_printed = f"mcss, {AS_PRINTED}"
    for labels, words in {**LABELS, "all": "all people's labels"}.items():
        if (as_printed, labels) in known:
            three = (of(rows, system=system, labels=labels) for system in (as_printed, "mcss", "supervised"))
            lines.append(f"With {words}, {_as_printed(*three)}")
    if ("mcss+fitted", "S1:0.1") in known:
        few, whole = of(rows, system="mcss+fitted", labels="S1:0.1"), of(rows, system="supervised")
        lines.append(
            f"MCSS with a tenth of the labels after `mcss remember`, and the baseline with all of them: "
            f"{few.against(whole)}."
        )
    if ("supervised", "all") in known:
        every, ours = of(rows, system="supervised", labels="all"), of(rows, system="mcss")
        lines.append(
            f"MCSS with one person's labels and the baseline with all people's: {ours.against(every)}; "
            f"{paper_pair(printed(TABLE1, MCSS), printed(TABLE1, BASELINE, labels='all'))}."
        )
        if ("mcss", "all") in known:
            lines.append(
                f"MCSS and the baseline, both with all people's labels: "
                f"{of(rows, system='mcss', labels='all').against(every)}; "
                f"{paper_pair(*_in_the_paper('all'))}."
            )
    else:
        lines.append("The baseline with all people's labels has not been measured under this rule yet.")
    return bullets([*lines, *_on_new_motion(read("new_motion"))])


def _in_the_paper(labels: str) -> tuple[float, float]:
    """The paper's N-MPJPE of MCSS and of the baseline, in mm."""
    return printed(TABLE1, MCSS, labels=labels), printed(TABLE1, BASELINE, labels=labels)


def _on_new_motion(rows: Rows) -> list[str]:
    """What is left of it on motions that nobody performed in training."""
    flat = [{**row, "hit_at_1": row["retrieval"] and row["retrieval"]["same_instant"]["hit_at_1"]} for row in rows]

    def pair(labels: str) -> str:
        ours, theirs = (of(flat, system=system, labels=labels) for system in ("mcss", "supervised"))
        return f"{ours.against(theirs)}; the same instant is found first in " + " and ".join(
            hit_at_1(flat, system, labels=labels) for system in ("mcss", "supervised")
        )

    known = {row["labels"] for row in rows if row["system"] == "mcss"}
    lines = [
        f"On motions that nobody performed in training, with {words}, MCSS and the baseline, N-MPJPE: "
        f"{pair(labels)} of the queries."
        for labels, words in LABELS.items()
        if labels in known
    ]
    if "S1" in known:
        pa = {system: of(flat, "pa_mpjpe", system=system) for system in ("mcss", "supervised", MEAN_POSE)}
        lines.append(
            f"On these motions, with one person's labels, PA-MPJPE: MCSS and the baseline "
            f"{pa['mcss'].against(pa['supervised'])}; MCSS and the mean pose {pa['mcss'].against(pa[MEAN_POSE])}."
        )
    return lines


def beyond(read: "Read") -> str:
    """Poses of neighbours in a fitted embedding, with each part taken away."""
    rows = read("beyond")

    def pair(one: str, other: str, measure: str = "n_mpjpe") -> str:
        return of(rows, measure, system=one).against(of(rows, measure, system=other))

    hits = partial(hit_at_1, rows)
    above = "above_oracle_cross_at_10"
    return bullets(
        (
            f"**All of it** (`mcss remember`), and the pose head, N-MPJPE of MCSS: {pair('mcss+fitted', 'mcss')}; with "
            f"the baseline's networks {pair('supervised+fitted', 'supervised')}. MCSS with all of it, and the baseline "
            f"with its pose head: {pair('mcss+fitted', 'supervised')}.",
            f"MCSS without fitting, and with it, N-MPJPE: {pair('mcss+neighbours', 'mcss+fitted')}.",
            f"MCSS without mirrored labels, and with them: {pair('mcss+unmirrored', 'mcss+fitted')}.",
            f"MCSS with the nearest label alone, and with a hundred: {pair('mcss+nearest', 'mcss+fitted')}.",
            f"**Search**, Mean-PA-MPJPE@10 across subjects above the oracle's, fitted and as trained: MCSS "
            f"{pair('mcss+fitted', 'mcss', above)}, the baseline's networks "
            f"{pair('supervised+fitted', 'supervised', above)}. The same instant is found first, fitted and as "
            f"trained: MCSS {hits('mcss+fitted')} and {hits('mcss')}, the baseline's networks "
            f"{hits('supervised+fitted')} and {hits('supervised')} of the queries.",
        )
    )


def longer(read: "Read") -> str:
    """Runs of the usual length and longer ones."""
    rows, again, above, fitted = read("longer"), LONGER_VARIANT, "above_oracle_cross_at_10", "mcss+fitted"

    def at(system: str, variant: str = again, labels: str = "S1", measure: str = "n_mpjpe") -> Measured:
        return of(rows, measure, system=system, variant=variant, labels=labels)

    few, ours = at("supervised"), at("mcss")
    lines = [
        f"Four times as long and as usual, N-MPJPE: MCSS {ours.against(at('mcss', ''))}, the baseline "
        f"{few.against(at('supervised', ''))}. MCSS and the baseline, both longer: {ours.against(few)}.",
        f"After `mcss remember`, longer and as usual: {at(fitted).against(at(fitted, ''))}. Longer MCSS with it and "
        f"the longer baseline: {at(fitted).against(few)}.",
    ]
    if any(row["labels"] == "all" and row["variant"] == again and row.get("n_mpjpe") is not None for row in rows):
        every = at("supervised", labels="all")
        lines.append(
            f"**With everybody's labels** the baseline has, longer and as usual, "
            f"{every.against(at('supervised', '', 'all'))}. Of the gap between one person's labels and all people's, "
            f"longer MCSS closes {share_of_gap(few.mean, ours.mean, every.mean)}, and after `mcss remember` "
            f"{share_of_gap(few.mean, at(fitted).mean, every.mean)}."
        )
    lines.append(
        f"**Search** by MCSS after `mcss remember`, longer and as usual, Mean-PA-MPJPE@10 across subjects above the "
        f"oracle's: {at(fitted, measure=above).against(at(fitted, '', measure=above))}. The same instant is found "
        f"first in {hit_at_1(rows, fitted, again)} and {hit_at_1(rows, fitted)} of the queries."
    )
    return bullets(lines)


Read = Callable[[str], Any]
FINDINGS: Mapping[str, tuple[str, Callable[[Read], str]]] = {
    "findings-main": ("docs/results.md", main_comparison),
    "findings-trials": ("docs/results.md", trials),
    "findings-table1": ("docs/reproduce.md", table1),
    "findings-compared-trials": (
        "docs/reproduce.md",
        partial(trials, tuning="compared_tuning", leave_out=("mcss", "supervised")),
    ),
    "findings-mediapipe": ("docs/reproduce.md", beside_mediapipe),
    "findings-signals": ("docs/reproduce.md", signals),
    "findings-others": ("docs/reproduce.md", others),
    "findings-beyond": ("docs/results.md", beyond),
    "findings-longer": ("docs/results.md", longer),
}
"""Name of the marks, the page, and what is written there."""


PLACES = {
    **{name: f"results/{name}.json" for name in ("report", "new_motion", "tuning")},
    "compared_tuning": "docs/results/tuning.json",
}
"""Where rows are that are not those of a part of `mcss reproduce`."""


def rows_of(name: str) -> Any:
    """The rows of a table, or the trials, as the program that measured them wrote them."""
    path = ROOT / PLACES.get(name, f"docs/results/{name}.json")
    written = json.loads(path.read_text(encoding="utf-8"))
    return written.get("rows", written)


def main() -> None:
    """Write all findings."""
    for name, (page, text) in FINDINGS.items():
        write_between(ROOT / page, name, text(rows_of))


if __name__ == "__main__":
    main()
