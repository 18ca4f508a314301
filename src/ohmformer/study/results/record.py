"""Types of the record of a study: what a reader needs to check its results and to repeat them. Free of torch."""

from __future__ import annotations

from ohmformer.study.results.part import Count, Number, Part, Text


class HardwareNumber(Part):
    """One value of the hardware, in the units of files.

    Attributes:
        field: dotted path from the accelerator on.
        value: the value with its unit.
        kind: published, derived, reconstructed, assumed, user or default; empty for a choice, such as a name.
        source: citation key; empty for none.
        where: place in the source, and how the value was derived.
    """

    field: Text
    value: Text
    kind: Text
    source: Text = ""
    where: Text = ""


class HardwareRecord(Part):
    """The values of one accelerator.

    Attributes:
        name: its name or file, as the study gives it.
        title: its title.
        numbers: all values, in the order of its file.
    """

    name: Text
    title: Text
    numbers: tuple[HardwareNumber, ...]


class Basis(Part):
    """What energy and area of a point rest on: shares by the origin of the numbers that they are proportional to.

    A share is the relative change of the total if all numbers of that origin grow, divided by their growth.

    Attributes:
        energy: origin (published, derived, ..., default) -> share of the energy that follows numbers in J, J/B and W.
        area: origin -> share of the area that follows numbers in m^2.
        energy_of: assumed or default number -> its share of the energy.
        area_of: assumed or default number -> its share of the area.
    """

    energy: dict[Text, Number]
    area: dict[Text, Number]
    energy_of: dict[Text, Number]
    area_of: dict[Text, Number]


class Work(Part):
    """A stretch of time in which a unit is at work: one bar of a timeline.

    Attributes:
        unit: the unit.
        stage: the stage that it works on.
        layer: the layer.
        block: number of the block of tokens.
        start_s: start, from that of the pass.
        seconds: duration.
    """

    unit: Text
    stage: Text
    layer: Text
    block: Count
    start_s: Number
    seconds: Number


class TimelineRecord(Part):
    """The beginning of a pass.

    Attributes:
        latency_s: time of the whole pass.
        shown_s: time that the bars cover, from the start on.
        jobs: number of bars of the whole pass.
        work: the bars, in order of their start.
    """

    latency_s: Number
    shown_s: Number
    jobs: Count
    work: tuple[Work, ...]


class RooflinePoint(Part):
    """The products of a stage, in all layers.

    Attributes:
        stage: name of the stage.
        operations: operations, two for each multiply-accumulate.
        moved_B: bytes of inputs and results, each counted once, and of weights and keys that do not stay in arrays.
        seconds: time in which at least one unit works on the stage.
    """

    stage: Text
    operations: Number
    moved_B: Number
    seconds: Number


class Roofline(Part):
    """How fast products run, and how fast they could.

    Attributes:
        peak_op_s: operations per second of all arrays of the placed tiles at full load, or of the GPU.
        bandwidth_B_s: memory in words -> its bandwidth, of all tiles together; empty where the hardware states none.
        points: one for each stage with products.
    """

    peak_op_s: Number
    bandwidth_B_s: dict[Text, Number]
    points: tuple[RooflinePoint, ...]


class Ran(Part):
    """Operations with the same engine, whose names differ in numbers alone.

    Attributes:
        name: their name, with * in place of numbers.
        what: what they compute.
        engine: role and kind of the engine; empty for the digital units of the chip.
        count: how many there are.
        macs: multiply-accumulates of all of them.
    """

    name: Text
    what: Text
    engine: Text
    count: Count
    macs: Number


class PassRecord(Part):
    """The last pass of one point, in the cost half.

    Attributes:
        point: position of the point in the study.
        workload: its model and size in words.
        ran: where its operations run.
        area_m2: component -> area.
        basis: what energy and area rest on; None if the prices of its hardware cannot be scaled.
        timeline: the beginning of the pass.
        roofline: None if the accelerator has no peak rate.
    """

    point: Count
    workload: Text
    ran: tuple[Ran, ...]
    area_m2: dict[Text, Number]
    basis: Basis | None = None
    timeline: TimelineRecord | None = None
    roofline: Roofline | None = None


class Record(Part):
    """What a reader needs to check results and to repeat them.

    Attributes:
        command: the command line that gives the same results.
        settings: path -> value as text, as the study file has them; `--set` stands in the command.
        seed: seed of the random numbers; None if the study has no accuracy.
        hardware: each accelerator of the study, as it is at the first point that has it.
        findings: sentences that need the scores of single samples, which results files leave out.
        priced: the first point that has a price; None without costs.
    """

    command: Text
    settings: tuple[tuple[Text, Text], ...]
    seed: Count | None = None
    hardware: tuple[HardwareRecord, ...] = ()
    findings: tuple[Text, ...] = ()
    priced: PassRecord | None = None
