"""`python -m tests.pull IMAGE`: an image out of its registry, a line a layer, through the public API alone."""

from __future__ import annotations

import argparse
import asyncio
import sys

import grpc
from slipway.v1 import image_service_pb2 as pb
from slipway.v1 import image_service_pb2_grpc as image_rpc

from common.errors import Unavailable
from common.rpc_status import error_from
from tests.pull.view import View

_ADDRESS = "127.0.0.1:50051"  # where `make up` serves


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.pull", description="Take an image from its registry.")
    parser.add_argument("image", metavar="IMAGE", help="[host[:port]/]repository[:tag][@digest]")
    parser.add_argument("--platform", default="", help="os/architecture[/variant] (default: the node's)")
    parser.add_argument("--address", default=_ADDRESS, help="the API service (default: %(default)s)")
    options = parser.parse_args()
    try:
        pulled = asyncio.run(
            _pull(options.address, pb.PullImageRequest(reference=options.image, platform=options.platform))
        )
    except grpc.aio.AioRpcError as call:
        error = error_from(call)
        silent = isinstance(error, Unavailable) and error.reason == Unavailable.default_reason
        hint = (
            f"nothing answers at {options.address}: start the services (make up), or name where they are with --address"
        )
        print(f"pull: {hint if silent else error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # what has come stays, and the next pull goes on from there
    print(f"{', '.join(pulled.image.repo_tags) or options.image}  {pulled.digest}")
    return 0


async def _pull(address: str, request: pb.PullImageRequest) -> pb.PulledImage:
    view = View(sys.stdout)
    pulled = pb.PulledImage()
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        async for answer in image_rpc.ImageServiceStub(channel).PullImage(request):
            if answer.HasField("image"):
                pulled = answer.image
            else:
                view.show(answer.progress)
    return pulled


if __name__ == "__main__":
    sys.exit(main())
