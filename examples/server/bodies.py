"""What the API of the FastAPI example takes: the members the model heeds, others let pass."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Cap = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(max_length=200_000)]


class Body(BaseModel):
    """A body; what else it holds is kept."""

    model_config = ConfigDict(extra="allow")

    model: str
    stream: bool = False


class Message(BaseModel):
    """One message of a chat."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[dict[str, Any]] | None = None


class Schema(BaseModel):
    """The JSON Schema of what a function takes."""

    model_config = ConfigDict(extra="allow")

    properties: dict[str, Any] = {}


class Function(BaseModel):
    """A function that the model may call."""

    name: str
    parameters: Schema | None = None


class ChatTool(BaseModel):
    """A tool of a chat."""

    type: Literal["function"]
    function: Function


class StreamOptions(BaseModel):
    """Whether a stream tells its usage: at its end, and with each chunk."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Chat(Body):
    """The body of a chat completion."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Cap | None = None
    max_tokens: Cap | None = None
    n: Literal[1] = 1
    stream_options: StreamOptions | None = None
    tools: list[ChatTool] | None = None


class ResponseTool(Function):
    """A tool of a response."""

    type: Literal["function"]


class Responses(Body):
    """The body of a response."""

    input: Text | Annotated[list[dict[str, Any]], Field(min_length=1)]
    instructions: Text | None = None
    max_output_tokens: Cap | None = None
    tools: list[ResponseTool] | None = None


class Embeddings(Body):
    """The body of a request for vectors."""

    input: Text | Annotated[list[Text], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"


class MessagesTool(BaseModel):
    """A tool of a request for messages."""

    name: str
    input_schema: Schema


class Messages(Body):
    """The body of a request for messages."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Cap
    system: Text | list[dict[str, Any]] | None = None
    tools: list[MessagesTool] | None = None
