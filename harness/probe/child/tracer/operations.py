"""Operations of torch by what they do with losses, by name."""

from __future__ import annotations

SHAPE = frozenset(
    """
    view reshape flatten ravel squeeze unsqueeze transpose permute t swapaxes swapdims movedim expand expand_as narrow
    select index_select split chunk unbind masked_select repeat roll flip diagonal take view_as reshape_as unflatten
    tensor_split split_with_sizes contiguous clone detach alias __getitem__ squeeze_ unsqueeze_ broadcast_to
    """.split()  # noqa: SIM905 - one word, one operation
)
JOIN = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack"})
REDUCE = frozenset({"sum", "mean", "nansum", "nanmean", "dot", "inner", "vdot"})
READ = frozenset({"item", "tolist", "numpy", "__float__", "__array__", "__format__", "__int__"})
SCATTER = frozenset(
    """
    index_add index_add_ scatter_add scatter_add_ bincount index_put index_put_ scatter_ scatter index_copy_
    """.split()  # noqa: SIM905 - the same
)
# Products whose rounding changes with the shapes that they are made in.
PRODUCTS = frozenset(
    ["linear", "matmul", "__matmul__", "mm", "bmm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention"]
)
# What mixes elements so that nobody knows what comes out.
LOST = frozenset(
    """
    softmax log_softmax cumsum cumprod sort argsort topk matmul mm bmm linear __matmul__ conv1d layer_norm rms_norm
    var std norm baddbmm addmm addmv mv einsum logcumsumexp empty_like zeros_like ones_like rand_like randn_like
    full_like bernoulli normal embedding scaled_dot_product_attention backward gather take_along_dim
    """.split()  # noqa: SIM905 - the same
)
# Hand a tensor's memory out.
SHARED = frozenset({"numpy", "__array__", "__dlpack__", "to_dlpack"})
# Sizes of gradients, by which others are scaled.
NUMBERS = frozenset({"norm", "vector_norm", "item", "_foreach_norm", "linalg_vector_norm", "isfinite", "isnan"})
# Attributes and questions; nothing follows from them.
SILENT = frozenset(
    """
    size dim stride numel nelement is_floating_point is_complex is_contiguous data_ptr element_size __len__ __hash__
    __bool__ requires_grad_ register_hook storage_offset is_signed get_device untyped_storage __repr__
    zero_grad retain_grad register_post_accumulate_grad_hook ndimension __dir__ __contains__ is_same_size
    _set_grad_enabled is_grad_enabled _has_compatible_shallow_copy_type
    """.split()  # noqa: SIM905 - the same
)
