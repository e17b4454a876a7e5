"""All accepted files together, and the checks between them. A refused file changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from federation.policy import documents, sense
from federation.policy.load import ParsedFile, Placed, parse
from federation.yamlkit.explain import Problem, did_you_mean, problem_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """An accelerator by its node label, and the MIG profiles that it can be partitioned into."""

    name: str
    mig_profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """The files in force, by name. `products` are the shipped ones; Cluster documents add theirs."""

    products: Mapping[str, Product] = field(default_factory=dict)
    files: Mapping[str, ParsedFile] = field(default_factory=dict)

    def documents(self) -> documents.Documents:
        """The documents of all files, sorted by name."""
        placed = [one.document for name in sorted(self.files) for one in self.files[name].documents]
        return documents.Documents(
            models=tuple(sorted((d for d in placed if isinstance(d, documents.Model)), key=_name)),
            policies=tuple(sorted((d for d in placed if isinstance(d, documents.PlacementPolicy)), key=_name)),
            clusters=tuple(sorted((d for d in placed if isinstance(d, documents.Cluster)), key=_name)),
        )


def _name(document: documents.Document) -> str:
    return document.metadata.name


def accept(
    current: PolicySet, name: str, payload: bytes, *, is_new: bool = True
) -> tuple[PolicySet, tuple[Problem, ...]]:
    """The set with this file in place of its last revision; or the same set, and the file's problems.

    Args: is_new: false for a file that was accepted before: the names that it uses may have gone since, and it stays.
    """
    parsed = parse(name, payload)
    others = {key: file for key, file in current.files.items() if key != name}
    problems = tuple(sorted((*parsed.problems, *_together(parsed, others, current.products, is_new=is_new))))
    if problems:
        return current, problems
    return replace(current, files={**others, name: parsed}), ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """The result of accepting files that changed together.

    Args: following: the set with every file that can be accepted. accepted: their names. replaced: files that are out
        of force because accepted ones have all their documents. problems: of each refused file.
    """

    following: PolicySet
    accepted: tuple[str, ...]
    replaced: tuple[str, ...]
    problems: Mapping[str, tuple[Problem, ...]]


def accept_together(current: PolicySet, payloads: Mapping[str, bytes], gone: Iterable[str] = ()) -> Together:
    """Accept files that changed together, so that a document may move from one to another.

    A refused file keeps its last revision, and blocks only files that define the same documents.

    Args: gone: files in force that are no longer in the directory; one stays in force unless others have all its
        documents.
    """
    parsed = {name: parse(name, payload) for name, payload in payloads.items()}
    problems = {name: file.problems for name, file in parsed.items() if file.problems}
    missing = sorted(set(gone) & current.files.keys())
    while True:
        good = {name: file for name, file in parsed.items() if name not in problems}
        defined = {(one.kind, one.name) for file in good.values() for one in file.documents}
        replaced = tuple(
            name for name in missing if all((one.kind, one.name) in defined for one in current.files[name].documents)
        )
        files = {name: file for name, file in current.files.items() if name not in good and name not in replaced}
        for name in sorted(good, key=lambda one: (not _has_cluster(good[one]), one)):
            if wrong := tuple(sorted(_together(good[name], files, current.products))):
                problems[name] = wrong
                if missing or name in current.files:
                    break  # its last revision may be in the way of those that were accepted
            else:
                files[name] = good[name]
        else:
            for name, file in parsed.items():
                if file.readable:
                    beside = {key: one for key, one in files.items() if key != name}
                    more = _together(file, beside, current.products)
                    problems[name] = tuple(sorted((*file.problems, *more)))
            return Together(
                following=replace(current, files=files),
                accepted=tuple(sorted(good.keys() - problems.keys())),
                replaced=replaced,
                problems=problems,
            )


def _has_cluster(file: ParsedFile) -> bool:
    """Cluster documents come first, because others refer to them."""
    return any(isinstance(one.document, documents.Cluster) for one in file.documents)


def warnings(current: PolicySet, name: str, reported: Mapping[str, tuple[sense.Stock, ...]]) -> tuple[Problem, ...]:
    """The documents of a file in force that have less effect than they say. Args: reported: pools by cluster, as
    reported."""
    everything = current.documents()
    placed = current.files[name].documents
    return tuple(sorted(found for one in placed for found in sense.doubtful(name, one, everything, reported)))


def withdraw(current: PolicySet, name: str) -> PolicySet:
    """The set without this file. Raises: KeyError if it is not in the set."""
    if name not in current.files:
        raise KeyError(name)
    return replace(current, files={key: file for key, file in current.files.items() if key != name})


def _together(
    parsed: ParsedFile, others: Mapping[str, ParsedFile], products: Mapping[str, Product], *, is_new: bool = True
) -> Iterator[Problem]:
    known = {
        (one.kind, one.name): f"{name}:{one.node.mark.line}" for name, file in others.items() for one in file.documents
    }
    owners = {
        model: (one.name, name)
        for name, file in others.items()
        for one in file.documents
        if isinstance(one.document, documents.PlacementPolicy)
        for model in one.document.spec.models.match_names
    }
    usable = dict(products)
    everything = [one for file in [*others.values(), parsed] for one in file.documents or file.readable]
    for one in everything:
        if isinstance(one.document, documents.Cluster):
            for pool in one.document.spec.accelerators:
                usable.setdefault(pool.product, Product(name=pool.product))
    clusters = [one.document for one in everything if isinstance(one.document, documents.Cluster)]
    for one in parsed.documents or parsed.readable:
        if is_new:
            yield from sense.impossible(parsed.name, one, clusters)
        where = known.get((one.kind, one.name))
        if where is not None:
            mark = one.mark("metadata", "name")
            yield problem_at(parsed.name, mark, f"{one.kind} {one.name} is already defined at {where}", "a new name")
        known[one.kind, one.name] = f"{parsed.name}:{one.node.mark.line}"
        if isinstance(one.document, documents.PlacementPolicy):
            yield from _owned_once(parsed.name, one, one.document.spec, owners)
        if isinstance(one.document, documents.Model) and products:
            yield from _known_products(parsed.name, one, one.document.spec, usable)


def _owned_once(
    file: str, placed: Placed, spec: documents.PlacementPolicySpec, owners: dict[str, tuple[str, str]]
) -> Iterator[Problem]:
    for number, model in enumerate(spec.models.match_names):
        if model in owners:
            policy, where = owners[model]
            mark = placed.mark("spec", "models", "matchNames", number)
            text = f"model {model} already obeys policy {policy} of {where}"
            yield problem_at(file, mark, text, "one policy for a model", "take it out of one of the two")
        owners[model] = (placed.name, file)


def _known_products(
    file: str, placed: Placed, spec: documents.ModelSpec, usable: Mapping[str, Product]
) -> Iterator[Problem]:
    for number, one in enumerate(spec.accelerators):
        product = usable.get(one.product)
        if product is None:
            mark = placed.mark("spec", "accelerators", number, "product")
            hint = did_you_mean(one.product, usable) or "name it in a Cluster document first if it is new"
            text = f"unknown accelerator product {one.product}"
            yield problem_at(file, mark, text, "a value of nvidia.com/gpu.product", hint)
        elif one.mig_profile and product.mig_profiles and one.mig_profile not in product.mig_profiles:
            mark = placed.mark("spec", "accelerators", number, "migProfile")
            text = f"{one.product} has no MIG profile {one.mig_profile}"
            yield problem_at(file, mark, text, "one of " + ", ".join(product.mig_profiles))
