"""Beam's runner for Dask clusters, with what its 2.77 release loses or lacks put right.

Apache Beam's own `DaskRunner` mixes the tagged outputs of a ParDo, drops what a bundle yields at
its end, groups text keys by a hash that differs between worker processes, computes a side input
anew in every task, leaves all work of a Reshuffle to one worker, and computes only the last of
several outputs. This runner translates these transforms itself, and takes the connection, its
options and the overrides from Beam. Stateful transforms, timers, splittable reads and metrics are
not supported, and the curation pipeline uses none of the first three.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import dask
import distributed
from apache_beam import pvalue
from apache_beam.coders import FastPrimitivesCoder
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners.common import DoFnContext, DoFnInvoker, DoFnSignature, Receiver
from apache_beam.runners.common import _OutputHandler as OutputHandler
from apache_beam.runners.dask import overrides
from apache_beam.runners.dask.dask_runner import DaskOptions, DaskRunner, DaskRunnerResult
from apache_beam.transforms.sideinputs import SideInputMap
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue
from dask import bag as bags

# Partitions of a collection for each thread of the cluster.
PARTITIONS_PER_THREAD = 2


class ClusterRunner(DaskRunner):
    """Runs a batch pipeline on a Dask cluster; its options are Beam's `--dask_client_address`."""

    def run_pipeline(self, pipeline: beam.Pipeline, options: Any) -> DaskRunnerResult:
        """Starts the computation of all outputs."""
        given = options.view_as(DaskOptions).get_all_options(drop_default=True, current_only=True)
        sizes = DaskOptions._extract_bag_kwargs(given)
        client = distributed.Client(**given)
        threads = sum(client.nthreads().values())
        pipeline.replace_all(overrides.dask_overrides())
        count = sizes.get("npartitions") or PARTITIONS_PER_THREAD * max(1, threads)
        visitor = _Translation(count)
        pipeline.visit(visitor)
        ends = [bag.map_partitions(_nothing) for bag in visitor.ends()]
        return _Result(client, client.compute(list(dask.optimize(*ends))))


class _Result(DaskRunnerResult):
    """Closes the connection when the pipeline has ended."""

    def wait_until_finish(self, duration: int | None = None) -> str:
        try:
            return super().wait_until_finish(duration)
        finally:
            self.client.close()


def _nothing(items: Iterable[Any]) -> list:
    collections.deque(items, 0)
    return []


class _Translation(PipelineVisitor):
    """Translates transforms to Dask bags, one for each output of each transform."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._bags: dict[tuple[AppliedPTransform, Any], bags.Bag] = {}
        self._read: set[tuple[AppliedPTransform, Any]] = set()

    def ends(self) -> list[bags.Bag]:
        """The bags that no transform reads."""
        return [bag for key, bag in self._bags.items() if key not in self._read]

    def visit_transform(self, node: AppliedPTransform) -> None:
        """Translates one transform."""
        inputs = [self._bag(one) for one in node.inputs if not isinstance(one, pvalue.PBegin)]
        transform = node.transform
        if isinstance(transform, overrides._Create):
            values = list(transform.values)
            found = bags.from_sequence(values, npartitions=self._partitions)
            if not values:
                found = bags.from_sequence([None], npartitions=1).map_partitions(_nothing)
        elif isinstance(transform, overrides._GroupByKeyOnly):
            found = self._grouped(inputs[0])
        elif isinstance(transform, overrides._Flatten):
            found = bags.concat(inputs).repartition(npartitions=self._partitions)
        elif isinstance(transform, overrides._Reshuffle):
            found = self._spread(inputs[0])
        elif type(transform) is beam.ParDo:
            self._translate_pardo(node, inputs[0])
            return
        elif isinstance(transform, overrides._GroupAlsoByWindow):
            # There is one window.
            found = inputs[0]
        else:
            raise NotImplementedError(f"{node.full_label}: Dask has no {type(transform).__name__}")
        for tag in node.outputs:
            self._bags[node, tag] = found

    def _bag(self, collection: pvalue.PCollection) -> bags.Bag:
        key = collection.producer, collection.tag
        self._read.add(key)
        return self._bags[key]

    def _translate_pardo(self, node: AppliedPTransform, inputs: bags.Bag) -> None:
        transform = node.transform
        args, kwargs = transform.raw_side_inputs
        views = [(type(side), side._view_options()) for side in node.side_inputs]
        sides = [_whole(self._bag(side.pvalue)) for side in node.side_inputs]
        settings = _Settings(transform.fn, transform.label, list(args), dict(kwargs), views)
        found = inputs.map_partitions(_run_bundle, settings, *sides)
        for tag in node.outputs:
            self._bags[node, tag] = found.map_partitions(_with_tag, tag)

    def _grouped(self, inputs: bags.Bag) -> bags.Bag:
        hashed = inputs.map(_with_hash)
        groups = hashed.groupby(_first, shuffle="tasks", npartitions=self._partitions)
        return groups.map_partitions(_by_key)

    def _spread(self, inputs: bags.Bag) -> bags.Bag:
        numbered = inputs.map_partitions(_numbered)
        groups = numbered.groupby(_first, shuffle="tasks", npartitions=self._partitions)
        return groups.map_partitions(_values)


@dataclasses.dataclass
class _Settings:
    """A DoFn with its arguments; side inputs come as (class of view, options)."""

    fn: beam.DoFn
    label: str
    args: list
    kwargs: dict
    views: list


class _Outputs(dict):
    """Receivers of a DoFn's outputs by tag, which collect in `values` the tag and the value."""

    def __init__(self) -> None:
        self.values_by_tag: list[tuple[Any, Any]] = []

    def __missing__(self, tag: Any) -> Receiver:
        self[tag] = _Output(tag, self.values_by_tag)
        return self[tag]


class _Output(Receiver):
    def __init__(self, tag: Any, values: list) -> None:
        self.tag, self.collected = tag, values

    def receive(self, windowed_value: WindowedValue) -> None:
        """Collects a value."""
        self.collected.append((self.tag, windowed_value.value))


def _run_bundle(items: Iterable[Any], settings: _Settings, *sides: list) -> list:
    """Runs a DoFn over a partition, as one bundle; returns (tag, value) of all outputs."""
    outputs = _Outputs()
    handler = OutputHandler(
        window_fn=GlobalWindows(),
        main_receivers=outputs[None],
        tagged_receivers=outputs,
        per_element_output_counter=None,
        output_batch_converter=None,
        process_yields_batches=False,
        process_batch_yields_elements=False,
    )
    invoker = DoFnInvoker.create_invoker(
        DoFnSignature(settings.fn),
        handler,
        context=DoFnContext(settings.label, state=None),
        side_inputs=[
            SideInputMap(view, options, [GlobalWindows.windowed_value(value) for value in side])
            for (view, options), side in zip(settings.views, sides, strict=True)
        ],
        input_args=settings.args,
        input_kwargs=settings.kwargs,
        user_state_context=None,
        bundle_finalizer_param=beam.DoFn.BundleFinalizerParam(),
    )
    invoker.invoke_setup()
    invoker.invoke_start_bundle()
    for item in items:
        invoker.invoke_process(GlobalWindows.windowed_value(item))
    invoker.invoke_finish_bundle()
    invoker.invoke_teardown()
    return outputs.values_by_tag


def _whole(bag: bags.Bag) -> bags.Item:
    """All elements of a bag, as one argument of tasks."""
    return bags.Item.from_delayed(dask.delayed(_joined)(bag.to_delayed()))


def _joined(parts: list[list]) -> list:
    return [item for part in parts for item in part]


def _with_tag(items: Iterable[tuple[Any, Any]], tag: Any) -> list:
    return [value for found, value in items if found == tag]


def _with_hash(item: tuple[Any, Any]) -> tuple[int, tuple[Any, Any]]:
    return _stable_hash(item[0]), item


def _numbered(items: Iterable[Any]) -> list[tuple[int, Any]]:
    return list(enumerate(items))


def _stable_hash(key: Any) -> int:
    """A hash that is the same in every process, unlike `hash` of a text."""
    data = FastPrimitivesCoder().as_deterministic_coder("key").encode(key)
    return int.from_bytes(hashlib.blake2b(data, digest_size=6).digest(), "little")


def _first(item: tuple[int, Any]) -> int:
    return item[0]


def _by_key(groups: Iterable[tuple[int, list]]) -> Iterator[tuple[Any, list]]:
    """Groups what has the same hash by the key itself."""
    for _, items in groups:
        found: dict[Any, list] = {}
        for _, (key, value) in items:
            found.setdefault(key, []).append(
                value.value if isinstance(value, WindowedValue) else value
            )
        yield from found.items()


def _values(groups: Iterable[tuple[int, list]]) -> list:
    return [item for _, items in groups for _, item in items]
