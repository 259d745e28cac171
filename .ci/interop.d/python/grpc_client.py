"""A gRPC client built from the .proto files: generates, streams, switches adapters, is refused."""

import sys
import time

import grpc
from google.protobuf.json_format import MessageToDict
from wardrobe.v1 import adapter_pb2, adapter_pb2_grpc, generation_pb2, generation_pb2_grpc

QUESTION = "Do you sell tents?"


def main(address):
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=30)
        generation = generation_pb2_grpc.GenerationServiceStub(channel)
        adapters = adapter_pb2_grpc.AdapterServiceStub(channel)

        def request(adapter=None, **more):
            message = generation_pb2.Message(role="user", content=QUESTION)
            return generation_pb2.GenerateRequest(
                messages=[message], adapter=adapter, seed=11, max_tokens=24, **more
            )

        response = adapters.ListAdapters(adapter_pb2.ListAdaptersRequest())
        while response.scanning:
            time.sleep(0.1)
            response = adapters.ListAdapters(adapter_pb2.ListAdaptersRequest())
        listed = {a.name for a in response.adapters}
        assert {"pirate", "sql", "terse"} <= listed, listed

        # Whole, streamed, and with the adapter changing from request to request on one channel.
        answers = {}
        for name in [None, "pirate", "terse", "pirate", None]:
            whole = generation.Generate(request(name), timeout=60)
            assert whole.token_ids, whole
            digest = whole.adapter_digest
            assert bool(digest) == (name is not None), (name, digest)
            events = list(generation.Chat(request(name), timeout=60))
            assert events[0].HasField("started") and events[-1].HasField("finished"), events
            assert events[0].started.adapter_digest == digest
            streamed = [t for e in events if e.HasField("delta") for t in e.delta.token_ids]
            text = "".join(e.delta.text for e in events if e.HasField("delta"))
            assert streamed == list(whole.token_ids), (name, streamed, list(whole.token_ids))
            assert text == whole.text, (name, text, whole.text)
            assert answers.setdefault(name, streamed) == streamed, name
        assert len({tuple(tokens) for tokens in answers.values()}) == 3, answers

        # Two adapters added up; another seed.
        mixed = generation_pb2.GenerateRequest(
            prompt=QUESTION,
            adapters=[
                generation_pb2.AdapterWeight(adapter="pirate", weight=0.5),
                generation_pb2.AdapterWeight(adapter="json", weight=0.5),
            ],
            max_tokens=8,
        )
        assert generation.Generate(mixed, timeout=60).token_ids

        # A stream that is cancelled ends; the channel lives on.
        long = generation.GenerateStream(
            generation_pb2.GenerateRequest(prompt="Once", max_tokens=400, ignore_eos=True), timeout=60
        )
        next(long)
        long.cancel()
        try:
            list(long)
            raise AssertionError("a cancelled stream ended as if it had not been")
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.CANCELLED, e

        for bad, code in [
            (request("no-such-adapter"), grpc.StatusCode.NOT_FOUND),
            (generation_pb2.GenerateRequest(prompt="x", temperature=-1), grpc.StatusCode.INVALID_ARGUMENT),
        ]:
            try:
                generation.Generate(bad, timeout=60)
                raise AssertionError(f"answered: {MessageToDict(bad)}")
            except grpc.RpcError as e:
                assert e.code() == code and e.details(), e
        try:
            generation.Generate(generation_pb2.GenerateRequest(prompt="x", max_tokens=400, ignore_eos=True), timeout=0.02)
            raise AssertionError("a deadline of 20 ms was met by 400 tokens")
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.DEADLINE_EXCEEDED, e
    print(f"Python gRPC {grpc.__version__}: {len(listed)} adapters listed, 5 switches, streams equal whole answers")


main(sys.argv[1])
