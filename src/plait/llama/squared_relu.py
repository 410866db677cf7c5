"""Squared ReLU for BitNet, whose graph in llama.cpp is gated by SiLU.

libllama shows a graph that it has built, before it gives it memory, to the samplers that run as part of it. The one
here chooses nothing and belongs to no sequence. It is called when a graph is built, not when it is computed, and
turns each layer's three element-wise nodes into others of the same shape that llama.cpp's own kernels compute:

    gate' = gate · sg                      gate' = relu(gate) · gate
    up'   = up · su            becomes     up'   = up · (sg² · su)
    out   = silu(gate') · up'              out   = gate' · up'

sg and su are the scales of the two matrices; relu(gate · sg)² = relu(gate) · gate · sg², since scales are positive.
"""

import ctypes
import logging
from collections.abc import Callable

from plait.llama.lib import native

_NO_SEQUENCE = -1
_OP_BYTES = 4 + 64
"""A node's operation and its parameters, which follow each other."""
_SILU_GATE, _MULTIPLICATION = b"SWIGLU", b"MUL"


_log = logging.getLogger("plait.llama")


class NotBitNet(Exception):
    """The graph is not what it has to be."""


class _Tensor(ctypes.Structure):
    """`ggml_tensor` as far as its sources."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
    )


_OP_AT, _SRC_AT, _SRC_BYTES = _Tensor.op.offset, _Tensor.src.offset, ctypes.sizeof(ctypes.c_void_p * 10)


def _function(name: str, result: type | None, *arguments: type) -> "ctypes._NamedFuncPointer":
    """One of ggml's, which comes with libllama and is not in the binding."""
    function: ctypes._NamedFuncPointer = getattr(native._lib, name)
    function.restype, function.argtypes = result, arguments
    return function


_pointer = ctypes.c_void_p
_n_nodes = _function("ggml_graph_n_nodes", ctypes.c_int, _pointer)
_nodes = _function("ggml_graph_nodes", ctypes.POINTER(_pointer), _pointer)
_describe = _function("ggml_op_desc", ctypes.c_char_p, _pointer)
_reglu = _function("ggml_reglu_split", _pointer, _pointer, _pointer, _pointer)
_scaled = _function("ggml_scale", _pointer, _pointer, _pointer, ctypes.c_float)
_product = _function("ggml_mul", _pointer, _pointer, _pointer, _pointer)
_get = _function("ggml_backend_tensor_get", None, _pointer, _pointer, ctypes.c_size_t, ctypes.c_size_t)


class SquaredReLU:
    """What the context that is created with `params` computes squared ReLU with, on the CPU. Used by its thread."""

    def __init__(self, n_layer: int, params: native.llama_context_params) -> None:
        self._n_layer = n_layer
        self.is_done = False
        """Whether all graphs since `begin`, and the last one before it, have squared ReLU in all their layers."""
        self._is_last_done = False
        self._places: dict[int, list[int]] = {}
        """Where a graph's gates are, by its number of nodes: graphs of one size are alike."""
        self._interface = _interface(self._see)
        sampler = native.llama_sampler_init(ctypes.pointer(self._interface), None)
        self._chain = native.llama_sampler_chain_init(native.llama_sampler_chain_default_params())
        native.llama_sampler_chain_add(self._chain, sampler)
        entry = native.llama_sampler_seq_config(_NO_SEQUENCE, ctypes.cast(self._chain, ctypes.c_void_p))
        self._entries = (native.llama_sampler_seq_config * 1)(entry)
        params.samplers, params.n_samplers = self._entries, 1
        params.op_offload = params.offload_kqv = False

    def close(self) -> None:
        """Frees the sampler. The context is closed before."""
        native.llama_sampler_free(self._chain)

    def begin(self) -> None:
        """A pass begins, of one graph or several. The first may be the last one of the pass before, used again."""
        self.is_done = self._is_last_done

    def _see(self, _sampler: object, context: int, graph: int, _data: object) -> None:
        """libllama's callback. Whatever may be wrong, `is_done` is false then; an exception would go nowhere."""
        n = _n_nodes(graph)
        if n == 0:
            return  # how large the sampler alone would be
        self._is_last_done = False
        try:
            self.rewrite(context, graph, n)
            self._is_last_done = True
        except NotBitNet as error:
            _log.error("%s", error)
        finally:
            self.is_done &= self._is_last_done

    def rewrite(self, context: int, graph: int, n: int) -> None:
        """Gives a graph of `n` nodes squared ReLU. Raises `NotBitNet`."""
        nodes = _nodes(graph)
        if n not in self._places:
            self._places[n] = [i for i in range(n) if _describe(nodes[i]) == _SILU_GATE]
        places = self._places[n]
        if len(places) != self._n_layer:
            raise NotBitNet(f"the graph of a model with {self._n_layer} layers has {len(places)} gates")
        for i in places:
            _rewrite(context, nodes[i])


def _rewrite(context: int, gate: int) -> None:
    if _describe(gate) != _SILU_GATE:
        raise NotBitNet("graphs of one size differ")
    opened, up = _sources(gate)[:2]
    (opened_in, opened_scale), (up_in, up_scale) = _factors(opened), _factors(up)
    _become(opened, _reglu(context, opened_in, opened_in))
    _become(up, _scaled(context, up_in, opened_scale * opened_scale * up_scale))
    _become(gate, _product(context, opened, up))


def _sources(node: int) -> list[int]:
    return list(_Tensor.from_address(node).src)


def _factors(node: int) -> tuple[int, float]:
    """What a node multiplies: a tensor, and a single number that is above 0."""
    tensor, scale = _sources(node)[:2]
    if _describe(node) != _MULTIPLICATION or list(_Tensor.from_address(scale).ne) != [1, 1, 1, 1]:
        raise NotBitNet("a matrix is not multiplied with its scale")
    number = ctypes.c_float()
    _get(scale, ctypes.byref(number), 0, ctypes.sizeof(number))
    if not number.value > 0:
        raise NotBitNet(f"a scale is {number.value}")
    return tensor, number.value


def _become(node: int, other: int) -> None:
    """Makes a node compute what another one does, where it is and by its own name."""
    ctypes.memmove(node + _OP_AT, other + _OP_AT, _OP_BYTES)
    ctypes.memmove(node + _SRC_AT, other + _SRC_AT, _SRC_BYTES)


def _interface(see: Callable[[object, int, int, object], None]) -> native.llama_sampler_i:
    """A sampler that looks at graphs and chooses nothing."""
    interface = native.llama_sampler_i()
    interface.name = native.llama_sampler_i_name(lambda _: b"squared-relu")
    interface.apply = native.llama_sampler_i_apply(lambda _, __: None)
    interface.backend_init = native.llama_sampler_i_backend_init(lambda _, __, ___: True)
    interface.backend_apply = native.llama_sampler_i_backend_apply(see)
    return interface
