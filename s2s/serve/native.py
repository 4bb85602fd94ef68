"""The interface of s2s itself: all that a model says about its output."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from s2s.serve.schema import Generate, Generated, ModelFacts, ModelList, output
from s2s.serve.service import Service
from s2s.serve.strict import StrictRoute


def router(service: Service) -> APIRouter:
    """/api/models and /api/generate."""
    routes = APIRouter(prefix="/api", tags=["s2s"], route_class=StrictRoute)

    @routes.get("/models")
    async def models() -> ModelList:
        """The models that are served."""
        return ModelList(
            models=[
                ModelFacts(
                    name=one.name,
                    task=one.task,
                    languages=list(one.model.languages),
                    attention=one.attention,
                    parameters=one.parameters,
                )
                for one in service.models.values()
            ]
        )

    @routes.post("/generate", response_model_exclude_none=True)
    async def generate(asked: Generate, request: Request) -> Generated:
        """An output for each input, with scores, n-best, flags and, if asked for, attention."""
        served = service.find(asked.model)
        changes = asked.options.model_dump(exclude_none=True)
        results = await service.answers(request, served, asked.conversations(), changes, alignment=asked.details)
        return Generated(model=served.name, outputs=[output(one, details=asked.details) for one in results])

    return routes
