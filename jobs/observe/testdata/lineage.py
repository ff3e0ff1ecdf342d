"""Reads OpenLineage events with the project's own client, whose classes are made
from the specification: every field must be one of the class, every value one
that it accepts, and every facet must name the schema that the class is made from.
"""

import importlib
import json
import pkgutil
import sys

import attr
from openlineage.client import event_v2, generated

# Classes by the name of the schema that they are made from.
CLASSES = {}
for module in pkgutil.iter_modules(generated.__path__):
    loaded = importlib.import_module(f"{generated.__name__}.{module.name}")
    for value in vars(loaded).values():
        if isinstance(value, type) and attr.has(value) and value.__module__ == loaded.__name__:
            CLASSES[value.__name__] = value


def build(cls, fields):
    """Makes an object of a class and of what JSON has for it."""
    known = {f.name: f for f in attr.fields(cls)}
    made = {}
    for name, value in fields.items():
        if name in ("_producer", "_schemaURL"):
            continue
        if name not in known:
            raise ValueError(f"{cls.__name__} has no field {name}")
        nested = next((c for c in CLASSES.values() if c.__module__ == cls.__module__ and c.__name__ in str(known[name].type)), None)
        made[name] = build(nested, value) if nested and isinstance(value, dict) else value
    return cls(**made)


def facets(found):
    made = {}
    for name, fields in found.items():
        cls = CLASSES[fields["_schemaURL"].rsplit("/", 1)[1]]
        facet = build(cls, fields)
        if cls._get_schema() != fields["_schemaURL"]:
            raise ValueError(f"{fields['_schemaURL']} is not {cls._get_schema()}")
        if not fields["_producer"]:
            raise ValueError(f"facet {name} has no producer")
        made[name] = facet
    return made


def dataset(cls, found):
    found = dict(found)
    for name in ("facets", "inputFacets", "outputFacets"):
        if name in found:
            found[name] = facets(found[name])
    return cls(**found)


events = json.load(open(sys.argv[1]))
for e in events:
    read = event_v2.RunEvent(
        eventTime=e["eventTime"],
        eventType=event_v2.RunState[e["eventType"]],
        producer=e["producer"],
        run=event_v2.Run(runId=e["run"]["runId"], facets=facets(e["run"]["facets"])),
        job=event_v2.Job(namespace=e["job"]["namespace"], name=e["job"]["name"], facets=facets(e["job"]["facets"])),
        inputs=[dataset(event_v2.InputDataset, d) for d in e["inputs"]],
        outputs=[dataset(event_v2.OutputDataset, d) for d in e["outputs"]],
    )
    if read.schemaURL != e["schemaURL"]:
        raise ValueError(f"{e['schemaURL']} is not {read.schemaURL}")
print(f"{len(events)} events are as the specification has them")
