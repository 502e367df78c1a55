"""The server that a practitioner writes first: FastAPI around transformers.pipeline, one request at a time.

python -m benchmarks.pipeline_server MODEL --dtype fp32 --port 8001
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline


class Body(BaseModel):
    input: str


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--port", type=int, default=8001)
    options = parser.parse_args()
    dtype = torch.float32 if options.dtype == "fp32" else torch.bfloat16
    classify = pipeline("text-classification", model=options.model, dtype=dtype, top_k=None)
    app = FastAPI()

    @app.post("/v1/classify")
    async def answer(body: Body) -> Any:  # in threads, requests compete for the cores and take longer
        return classify(body.input, truncation=True)

    @app.get("/health")
    async def health() -> str:
        return "alive"

    uvicorn.run(app, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
