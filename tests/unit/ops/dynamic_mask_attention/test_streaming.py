import torch

from small_doge.ops import KeptKeys, streaming_attention

from .inputs import make_inputs


def test_streaming_goes_on_from_kept_keys():
    query, key, value, score = (x.detach() for x in make_inputs(tokens=40, ties=True))
    whole, _ = streaming_attention(query, key, value, score, 7, 0.35, chunk_size=5)
    past, outputs = None, []
    for start, end in [(0, 3), (3, 4), (4, 20), (20, 40)]:
        part = slice(start, end)
        out, past = streaming_attention(
            query[:, :, part], key[:, :, part], value[:, :, part], score[:, :, part], 7, 0.35, past=past, start=start
        )
        outputs.append(out)
        assert isinstance(past, KeptKeys) and past.key.shape[2] == min(end, 7)
    torch.testing.assert_close(torch.cat(outputs, dim=2), whole)
