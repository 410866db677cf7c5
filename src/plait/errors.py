"""Everything that may go wrong on purpose.

* PlaitError                 status  code
  x BadRequest               400     invalid_request
    + NotTokenizable         400     prompt_not_tokenizable
    + KnownPoison            400     previously_crashed_engine
    + ContextOverflow        400     context_length_exceeded
    + InvalidModel           400     invalid_model
  x Unauthorized             401     invalid_api_key
  x Forbidden                403     forbidden
  x NotFound                 404     not_found
    + ModelNotFound          404     model_not_found
  x MethodNotAllowed         405     method_not_allowed
  x SlowRequest              408     request_timeout
  x Conflict                 409     conflict
  x BodyTooLarge             413     body_too_large
  x UnsupportedMedia         415     unsupported_media_type
  x Overloaded               429     overloaded
  x GenerationFailed         500     generation_failed
  x ModelLoadFailed          500     model_load_failed
  x PoisonousRequest         500     engine_crash
  x WorkerDied               503     worker_died
  x Unavailable              503     unavailable
    + ModelChanged           503     model_changed
  x DeadlineExceeded         504     deadline_exceeded
  x OutOfMemory              507     insufficient_memory

Raised where known; crosses the socket as `Failed(code, message, param)`; each dialect renders it in its own JSON.
A name that is not in this tree is a defect of ours and becomes a plain 500 without its text.
"""


class PlaitError(Exception):
    """`param` names the request's field at fault; `retry_after` is in seconds, for the header of that name."""

    status = 500
    code = "internal_error"
    usual_retry: int | None = None
    """`retry_after` where nobody knows better."""

    def __init__(self, message: str, *, param: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = self.usual_retry if retry_after is None else retry_after


class BadRequest(PlaitError):
    """The request cannot be understood or asks for something that is not served."""

    status, code = 400, "invalid_request"


class NotTokenizable(BadRequest):
    """A text that libllama's tokenizer might not survive, or would take minutes for."""

    code = "prompt_not_tokenizable"


class KnownPoison(BadRequest):
    """Engine processes died of the same request a while ago; it is not tried again."""

    code = "previously_crashed_engine"


class ContextOverflow(BadRequest):
    """The prompt leaves no room for a single token in the context."""

    code = "context_length_exceeded"


class InvalidModel(BadRequest):
    """A file of which, going by its header, no model can be made."""

    code = "invalid_model"


class Unauthorized(PlaitError):
    """No API key, or a wrong one."""

    status, code = 401, "invalid_api_key"


class Forbidden(PlaitError):
    """A Host that is not this machine's, where only this machine is served; or a key that may not do what it asks."""

    status, code = 403, "forbidden"


class NotFound(PlaitError):
    """No such path."""

    status, code = 404, "not_found"


class ModelNotFound(NotFound):
    """No model of that name is served here."""

    code = "model_not_found"


class MethodNotAllowed(PlaitError):
    """The path exists, the method does not."""

    status, code = 405, "method_not_allowed"


class SlowRequest(PlaitError):
    """The request did not arrive in time."""

    status, code = 408, "request_timeout"


class Conflict(PlaitError):
    """The state of the server forbids it, such as a model name in use."""

    status, code = 409, "conflict"


class BodyTooLarge(PlaitError):
    """The body passes the configured cap."""

    status, code = 413, "body_too_large"


class UnsupportedMedia(PlaitError):
    """A body that is not JSON, or is compressed."""

    status, code = 415, "unsupported_media_type"


class Overloaded(PlaitError):
    """The queue is full; `retry_after` says when to come back."""

    status, code = 429, "overloaded"


class GenerationFailed(PlaitError):
    """The engine refused a step of this one request."""

    status, code = 500, "generation_failed"


class ModelLoadFailed(PlaitError):
    """A file with a model's header was not loaded; whose fault that is, libllama does not say."""

    status, code = 500, "model_load_failed"


class PoisonousRequest(PlaitError):
    """Engine processes died of it, one after the other."""

    status, code = 500, "engine_crash"


class WorkerDied(PlaitError):
    """The engine process that worked on the request is gone."""

    status, code = 503, "worker_died"
    usual_retry = 1


class Unavailable(PlaitError):
    """Loading or draining; try again."""

    status, code = 503, "unavailable"
    usual_retry = 1


class ModelChanged(Unavailable):
    """The file is not what was loaded from it, so no other worker may take over."""

    code = "model_changed"
    usual_retry = 30


class DeadlineExceeded(PlaitError):
    """The answer was not complete in the time that the request had."""

    status, code = 504, "deadline_exceeded"


class OutOfMemory(PlaitError):
    """A model does not fit the memory budget."""

    status, code = 507, "insufficient_memory"


def from_code(code: str, message: str, param: str | None = None) -> PlaitError:
    """The exception that a `Failed` event stands for."""
    return _BY_CODE.get(code, PlaitError)(message, param=param)


def _tree(cls: type[PlaitError]) -> list[type[PlaitError]]:
    return [cls, *(below for sub in cls.__subclasses__() for below in _tree(sub))]


KINDS = tuple(_tree(PlaitError))
_BY_CODE = {cls.code: cls for cls in KINDS}
