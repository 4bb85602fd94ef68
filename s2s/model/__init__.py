"""Encoders, decoders and the model that joins them. The builders that `conf/encoder` and `conf/decoder` name."""

from s2s.model.decoder import recurrent_decoder
from s2s.model.encoder import recurrent_encoder
from s2s.model.transformer import transformer_encoder
from s2s.model.transformer_decoder import transformer_decoder

__all__ = ["recurrent_decoder", "recurrent_encoder", "transformer_decoder", "transformer_encoder"]
