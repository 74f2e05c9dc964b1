"""Fine-tunes a PyTorch model under the masks that `sparsec sparsify --masks masks.safetensors` wrote: zeros stay zero.

The weights come from `sparsec sparsify --quantize none`; after fine-tuning, export to ONNX and quantize:
`sparsec sparsify tuned.onnx -o tuned_int8.onnx --data calib.npz`, which keeps every zero.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file


def attach_masks(model: torch.nn.Module, masks_file: Path, names: dict[str, str]) -> None:
    """`names`: parameter's name -> the weight's name in the ONNX model, where an export renamed it."""
    masks = load_file(masks_file)
    for name, parameter in model.named_parameters():
        mask = masks.get(names.get(name, name))
        if mask is None:
            continue
        # MatMul keeps a linear layer's weight as [inputs, outputs], PyTorch as [outputs, inputs]
        mask = (mask if mask.shape == parameter.shape else mask.T).to(parameter)
        parameter.data.mul_(mask)
        parameter.register_hook(lambda gradient, mask=mask: gradient * mask)


def finetune(model: torch.nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], rate: float = 1e-5) -> None:
    """Weight decay and momentum move no masked weight: it is 0 and its gradient is 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for inputs, labels in batches:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
