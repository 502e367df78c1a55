"""Requests and responses of the API. /v1/classify follows vLLM, /predict follows text-embeddings-inference."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Probability = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, StringConstraints(strict=True)]
AtLeastOne = Field(min_length=1)
Pair = Annotated[list[Text], Field(min_length=2, max_length=2)]
TextOrPair = Annotated[list[Text], Field(min_length=1, max_length=2)]


class ClassifyRequest(BaseModel):
    """Texts to classify, and what to return. Fields that vLLM's clients send besides are ignored."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"model": "quickstart-s42", "input": ["Oil slips below 50 dollars as stocks of crude rise"]}}
    )

    input: Text | Annotated[list[Text], AtLeastOne] | Annotated[list[Pair], AtLeastOne] = Field(
        description="A text, a list of texts, or a list of text pairs for a model that was trained on several text columns."
    )
    model: str | None = Field(None, description="A name from /v1/models. Default: the first model.")
    top_k: Annotated[int, Field(ge=1)] | None = Field(None, description="Also return the k most probable classes, in order.")
    threshold: Probability | None = Field(None, description="Also return all classes with at least this probability.")
    abstain_below: Probability | None = Field(None, description="Return label null where the highest probability is lower.")
    explain: bool = Field(False, description="Also return how much each word adds to the predicted class's logit.")


class ClassScore(BaseModel):
    """A class and its probability."""

    label: str
    score: float


class Classification(BaseModel):
    """The classification of one text. probs: in the order of the model's classes; scores: the same by class name."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int
    scores: dict[str, float]
    top: list[ClassScore] | None = None
    above_threshold: list[ClassScore] | None = None
    words: list[tuple[str, float]] | None = None


class Usage(BaseModel):
    """Tokens of all texts."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int = 0


class ClassifyResponse(BaseModel):
    """The classifications, one per text, in order. created: seconds since 1970."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Classification]
    usage: Usage


class PredictRequest(BaseModel):
    """Texts in the format of text-embeddings-inference: a text, a pair, or a list of [text] and [text, text]."""

    model_config = ConfigDict(json_schema_extra={"example": {"inputs": "Oil slips below 50 dollars as stocks of crude rise"}})

    inputs: Text | TextOrPair | Annotated[list[TextOrPair], AtLeastOne] = Field(
        description="A text, a pair, or a list of [text] and [first, second]."
    )
    raw_scores: bool = Field(False, description="Return logits instead of probabilities.")
    truncate: bool | None = Field(None, description="false: refuse texts beyond the model's length instead of cutting them.")
    truncation_direction: Literal["right", "Right"] = Field("right", description="Texts are cut at their end.")


class FeedbackRequest(BaseModel):
    """A text with its right label."""

    text: Annotated[Text, Field(min_length=1, description="What was classified.")]
    label: Annotated[Text, Field(min_length=1, description="Its right class.")]
    model: str | None = Field(None, description="The model whose classes the label is one of. Default: the first model.")


class LoadRequest(BaseModel):
    """A run to load: the name of a folder in the folder that the server watches."""

    model: Annotated[str, StringConstraints(pattern=r"^[^/\\\x00]{1,200}$")] = Field(description="The name of its folder.")


class ModelCard(BaseModel):
    """A model as OpenAI's clients list it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "loralab"
    classes: list[str]
    base: str


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorDetail(BaseModel):
    """What went wrong and what to do."""

    message: str
    type: str
    code: int
    param: str | None = None


class ErrorResponse(BaseModel):
    """The body of every response with a status of 400 and above, except /predict's."""

    error: ErrorDetail


class PredictError(BaseModel):
    """The body of /predict's errors, as text-embeddings-inference has it."""

    error: str
    error_type: str


Prediction = list[ClassScore]
PredictResponse = Prediction | list[Prediction]
JsonObject = dict[str, Any]
