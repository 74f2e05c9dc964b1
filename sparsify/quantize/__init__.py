"""int8: ranges of activations, rounding of weights, and the QuantizeLinear / DequantizeLinear form."""
