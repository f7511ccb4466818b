"""The figures of one model, each with a text for readers who cannot see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from scipy.stats import rankdata

from layerimp.defaults import RANDOM
from layerimp.report.cuts import whole
from layerimp.report.html import plots
from layerimp.report.html.canvas import NARROW, WIDE
from layerimp.report.html.cells import Square, dots, matrix
from layerimp.report.html.format import listed, signed
from layerimp.report.html.svg import drawn_twice
from layerimp.report.html.view import View
from layerimp.report.removable import LEVELS
from layerimp.report.statistics import Interval
from layerimp.report.tables import named, percent, plus_minus, removable_at
from layerimp.steps import Step, removed_by, sublayers_of
from layerimp.steps import named as steps_named


@dataclass(frozen=True)
class Drawn:
    """A figure of the page, and what its caption says besides the usual."""

    picture: Markup
    note: str = ""


@dataclass(frozen=True)
class Figures:
    """The figures of one model.

    Attributes:
        view: What the report says of it otherwise.
    """

    view: View

    def _drawn(
        self, draw: Callable[..., Figure], name: str, alt: str, note: str = "", pruner: str | None = None
    ) -> Drawn:
        """A figure for wide and for narrow screens; that of one pruner says which it is, where there are several."""
        if pruner is not None:
            name += str(self.view.pruners.index(pruner))
            note += f"Pruner: {pruner}." if len(self.view.pruners) > 1 else ""
        return Drawn(drawn_twice(draw(sheet=WIDE), draw(sheet=NARROW), f"{self.view.name}-{name}", alt), note)

    @cached_property
    def retained(self) -> list[Drawn]:
        """What is retained by ratio, for each pruner."""
        return [self._retained(pruner) for pruner in self.view.pruners if pruner in self.view.answers]

    def _retained(self, pruner: str) -> Drawn:
        places = sorted(self.view.answers[pruner], key=lambda place: place.row.removed_blocks)
        lines: dict[str, dict[float, Interval]] = {
            label: {
                round(place.row.removed_blocks * self.view.model.num_blocks): place.row.entries[label].value
                for place in places
                if label in place.row.entries
            }
            for label, contender in self.view.found.design.contenders.items()
            if contender.scorer in self.view.model.scored
        }
        known = {label: line for label, line in lines.items() if line}
        said = []
        for place in places:
            shares = {line.entry.label: percent(line.entry.value) for line in place.lines}
            (best, most), *_, (worst, least) = [*shares.items()] * 2
            chance = f", random {shares[RANDOM]}" if RANDOM in shares else ""
            span = f"from {best} with {most} to {worst} with {least}{chance}" if len(shares) > 1 else f"{best} {most}"
            said.append(f"at {named(place.row.ratio)} {span}")
        missing = [label for label in lines if label not in known]
        note = f"What {listed(missing)} retain is not known. " if missing else ""
        healed = ", healed and not," if self.view.found.design.healers else ""
        scorers = {self.view.found.design.contenders[label].scorer for label in known}
        plural = "s" * (len(scorers) > 1)
        alt = f"Line chart of what {len(scorers)} scorer{plural}{healed} retain: {'; '.join(said)}."
        draw = partial(plots.curves, known, self.view.model.num_blocks, self.view.styles)
        return self._drawn(draw, "retained", alt, note, pruner=pruner)

    @cached_property
    def removable(self) -> list[Drawn]:
        """How many blocks may go, for each pruner for which several numbers were measured."""
        return [self._removable(p) for p in dict.fromkeys(pruner for pruner, _ in self.view.model.removable)]

    def _removable(self, pruner: str) -> Drawn:
        found = {label: one for (p, label), one in self.view.model.removable.items() if p == pruner}
        middle = sorted(LEVELS)[len(LEVELS) // 2]
        order = sorted(found, key=lambda label: -found[label].levels[middle].mean.mean)
        said = [f"{label} {removable_at(found[label].levels[middle])}" for label in order]
        many = f"Bars of how many of {self.view.model.num_blocks} blocks may go."
        alt = f"{many} While {middle:.0%} is retained: {', '.join(said)}."
        measured = sorted({count for one in found.values() for count in one.measured})
        draw = partial(plots.removable, {label: found[label].levels for label in order}, measured, self.view.styles)
        note = f"Measured without {listed(map(str, measured))} blocks."
        return self._drawn(draw, "removable", alt, note, pruner=pruner)

    @cached_property
    def importance(self) -> Drawn:
        """The ranks that each scorer gives to the blocks, and to the seams between them where those were scored."""
        scored, middles = self.view.model.scored, self._middles
        steps = next(iter(scored.values())).steps
        ranks = {
            scorer: np.mean([(rankdata(scores) - 1) / max(len(steps) - 1, 1) for scores in one.scores], axis=0)
            for scorer, one in scored.items()
        }
        rows = {}
        for scorer, shares in ranks.items():
            going = self._going(scorer, steps)
            scores = [plus_minus(mean) for mean in scored[scorer].means]
            tips = [
                f"{scorer}, {steps_named([step])}: score {scores[n]}, rank {shares[n]:.2f}, {self._often(going[n])}"
                for n, step in enumerate(steps)
            ]
            rows[scorer] = [Square(float(shares[n]), marked=going[n] >= 0.5, tip=tips[n]) for n in range(len(steps))]
        seams = len(steps) - self.view.model.num_blocks
        what = f"blocks{' and seams' if seams else ''}"
        legend = [(Square(0.0), "least important"), (Square(1.0), "most important")]
        note = "Between two blocks stands the seam that lies there. " if seams else ""
        if middles:
            at = f" at {named(next(iter(middles.values())))}" if len(set(middles.values())) == 1 else ""
            legend.append((Square(0.0, marked=True), f"removed{at}"))
            note += f"Crossed: {what} that go{at}{self._mostly}"
            note += f" (pruner {self.view.pruners[0]})." if len(self.view.pruners) > 1 else "."
        seeing = [scorer for scorer in ranks if scorer not in self.view.found.design.blind]
        overall = np.mean([ranks[scorer] for scorer in seeing or ranks], axis=0)
        low, high = int(overall.argmin()), int(overall.argmax())
        many = f"{self.view.model.num_blocks} blocks" + (f" and {seams} seams" if seams else "")
        alt = (
            f"Heat map of the importance of {many} by {len(rows)} scorers. On average over the scorers "
            f"that look at text, {steps_named([steps[high]])} ranks highest ({overall[high]:.2f} of 1) and "
            f"{steps_named([steps[low]])} lowest ({overall[low]:.2f})."
        )
        columns = [str(step) if isinstance(step, int) else "" for step in steps]
        draw = partial(matrix, rows, columns, size=(52, 28), strength=0.9, legend=legend)
        return self._drawn(draw, "importance", alt, note)

    @cached_property
    def _middles(self) -> dict[str, float]:
        """By scorer, the middle one of the ratios at which its choice by the first pruner is known."""
        found = {}
        for scorer in self.view.model.scored if self.view.pruners else ():
            pruner = self.view.pruners[0]
            ratios = [r for r in self.view.counts(pruner) if (pruner, r, scorer) in self.view.model.pruned]
            if ratios:
                found[scorer] = ratios[len(ratios) // 2]
        return found

    def _often(self, share: float) -> str:
        """In which share of the repeats something is removed, in words."""
        if self.view.model.repeated:
            return f"removed in {share:.0%} of repeats"
        return "removed" if share else "kept"

    @property
    def _mostly(self) -> str:
        return " in at least half of the repeats" if self.view.model.repeated else ""

    def _going(self, scorer: str, steps: Sequence[Step]) -> list[float]:
        """The share of the repeats in which nothing is left of each block or seam, at the scorer's middle ratio."""
        places = [(self.view.pruners[0], ratio, scorer) for one, ratio in self._middles.items() if one == scorer]
        gone = [removed_by(one.blocks) for place in places for one in self.view.model.pruned[place]]
        return [sum(each.issuperset(sublayers_of(step)) for each in gone) / max(len(gone), 1) for step in steps]

    def _shares(self, pruner: str, ratio: float, scorer: str) -> list[float]:
        """The share of the repeats in which each block goes; of a half that goes, half a repeat."""
        found = self.view.model.pruned.get((pruner, ratio, scorer), ())
        gone = Counter(part.block for one in found for part in removed_by(one.blocks))
        return [gone[n] / 2 / max(len(found), 1) for n in range(self.view.model.num_blocks)]

    @cached_property
    def agreement(self) -> Drawn:
        """Kendall's tau between scorers, and between the repeats of each."""
        scored = self.view.model.scored
        taus = {
            (a, b): scored[a].tau if a == b else self.view.model.agreement.get((a, b))
            for a, b in product(scored, scored)
        }
        rows = {a: [_valued(taus[a, b], f"{a} and {b}") for b in scored] for a in scored}
        known = {pair: tau for pair, tau in taus.items() if tau is not None and pair[0] < pair[1]}
        selves = {a: tau for (a, b), tau in taus.items() if a == b and tau is not None}
        parts = [f"Matrix of Kendall's tau between {len(scored)} scorers."]
        if known:
            (most, least) = (choose(known, key=lambda pair: known[pair]) for choose in (max, min))
            parts.append(f"Two scorers agree most: {listed(most)} with {known[most]:.2f}.")
            parts.append(f"Two agree least: {listed(least)} with {known[least]:.2f}.")
        if selves:
            worst = min(selves, key=lambda scorer: selves[scorer])
            parts.append(f"Between repeats, {worst} agrees least with itself: {selves[worst]:.2f}.")
        draw = partial(matrix, rows, list(scored), size=(50, 34), strength=0.5, slanted=True)
        return self._drawn(draw, "agreement", " ".join(parts))

    @cached_property
    def stability(self) -> list[Drawn]:
        """How much the removed sets of the repeats agree, for each pruner."""
        return [self._stability(p) for p in self.view.pruners if any(key[0] == p for key in self.view.model.stability)]

    def _stability(self, pruner: str) -> Drawn:
        ratios, stability = list(self.view.counts(pruner)), self.view.model.stability
        rows, said = {}, []
        for scorer in self.view.model.scored:
            found = [stability.get((pruner, ratio, scorer)) for ratio in ratios]
            rows[scorer] = [
                Square(one.jaccard, f"{one.jaccard:.2f}", f"{one.same:.0%} equal") if one else Square(None, "–")
                for one in found
            ]
        for ratio in ratios:
            here = {s: one for s in rows if (one := stability.get((pruner, ratio, s)))}
            if here:
                most, least = (choose(here, key=lambda scorer: here[scorer].jaccard) for choose in (max, min))
                said.append(
                    f"at {named(ratio)} from {here[most].jaccard:.2f} ({most}) to {here[least].jaccard:.2f} ({least})"
                )
        alt = f"Matrix of the mean Jaccard index between repeats, by scorer and ratio: {'; '.join(said)}."
        draw = partial(matrix, rows, [named(ratio) for ratio in ratios], size=(88, 42), strength=0.5)
        return self._drawn(draw, "stability", alt, pruner=pruner)

    @cached_property
    def cost(self) -> list[Drawn]:
        """What each scorer costs; nothing where no scorer was timed."""
        passes = {scorer: scored.cost for scorer, scored in self.view.model.scored.items()}
        if not any(passes.values()):
            return []
        order = sorted(passes, key=lambda scorer: (passes[scorer] is None, passes[scorer] or 0))
        timed = [f"{scorer} {cost:.3g}" for scorer in order if (cost := passes[scorer])]
        parts = [f"Cost in bare passes: {listed(timed)}."]
        free, untimed = ([s for s in order if passes[s] == 0], [s for s in order if passes[s] is None])
        parts += [f"Without a look at text: {listed(free)}."] if free else []
        parts += [f"Not timed: {listed(untimed)}."] if untimed else []
        draw = partial(plots.costs, {scorer: passes[scorer] for scorer in order}, self.view.styles)
        return [self._drawn(draw, "cost", " ".join(parts))]

    @cached_property
    def removed(self) -> list[Drawn]:
        """Which blocks go, for each pruner."""
        return [self._removed(pruner) for pruner in self.view.pruners]

    def _removed(self, pruner: str) -> Drawn:
        panels, said = {}, []
        for ratio, count in self.view.counts(pruner).items():
            scorers = [scorer for scorer in self.view.model.scored if (pruner, ratio, scorer) in self.view.model.pruned]
            panel = {scorer: self._shares(pruner, ratio, scorer) for scorer in scorers}
            blocks = "" if isinstance(ratio, int) else f": {count} block{'s' * (count > 1)}"
            panels[f"{named(ratio)}{blocks} of {self.view.model.num_blocks}"] = panel
            votes = [sum(shares[n] >= 0.5 for shares in panel.values()) for n in range(self.view.model.num_blocks)]
            top = votes.index(max(votes))
            said.append(f"at {named(ratio)} block {top} goes most often, by {votes[top]} of {len(panel)} scorers")
        alt = f"Grid of dots: which blocks each scorer removes{self._mostly}: {'; '.join(said)}."
        draw = partial(dots, panels, self.view.model.num_blocks, self.view.styles)
        plans = (one.blocks for key, found in self.view.model.pruned.items() if key[0] == pruner for one in found)
        note = "" if all(map(whole, plans)) else "A block of which a half goes, with a seam, counts half. "
        return self._drawn(draw, "removed", alt, note, pruner=pruner)


def _valued(tau: float | None, pair: str) -> Square:
    return Square(None, "–", tip=f"{pair}: unknown") if tau is None else Square(tau, signed(tau, ".2f"), tip=pair)
