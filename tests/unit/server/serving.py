"""What the tests of the server serve: one small model, and a model that takes no time."""

from moreseek.server.models import Models, ServedModel
from moreseek.server.service import Served
from moreseek.server.turns import FairQueue


def model_of(llm, name="tiny", running=256, queue=256, size=0):
    """A model that is loaded by being handed out."""
    return ServedModel(name, lambda: llm, FairQueue(running, queue), llm.engine.context, size, llm=llm, state="ready")


def served(llm, *, name="tiny", running=256, queue=256, **more):
    """A service with one model, loaded."""
    models = Models({name: model_of(llm, name, running=running, queue=queue)})
    models.begun = True
    return Served(models, **more)
