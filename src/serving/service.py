"""From a request's body to its answer, whatever framework speaks HTTP around it."""

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor

from ..deploy.detector import THRESHOLD
from ..deploy.predictor import Found, Predictor
from ..deploy.runtimes import Runtime
from ..structures import ClassNames
from .batching import Batcher
from .body import Body
from .limits import Limits
from .metrics import Metrics
from .places import Places
from .reading import Decoded, Decoding
from .schema import Answer, Detection, ModelClass, ModelFacts, PictureAnswer, problem

DECODERS = min(4, os.cpu_count() or 1)


class Service:
    """A detector that many ask at once. Bodies are decoded in a few threads, and detected in one."""

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        limits: Limits = Limits(),  # noqa: B008 - it is immutable
        *,
        batch_size: int = 8,
        max_wait_ms: float = 5.0,
    ) -> None:
        """Start the threads.

        Args:
            runtime: What runs the detector.
            name: What the model is called.
            limits: What a client may ask for.
            batch_size: Most pictures in one call of the detector.
            max_wait_ms: How long a call waits for more pictures than there are.

        Raises:
            ValueError: A setting is out of range.
        """
        if batch_size < 1 or not 0 <= max_wait_ms < float("inf"):
            raise ValueError(
                f"batch size {batch_size} and a wait of {max_wait_ms:g} ms were asked for, allowed are 1 or "
                "more, and 0 or more"
            )
        self.name = name
        self.limits = limits.checked()
        self.runtime = runtime
        self.metrics = Metrics()
        bodies = self.limits.max_waiting * self.limits.max_upload_bytes
        self._coming = Places(bodies, "{:,} bytes of other bodies have come already")
        self._places = Places(self.limits.max_waiting, "{} pictures are waiting already")
        self._predictor = Predictor(runtime)
        self._decoders = ThreadPoolExecutor(DECODERS, "decoder")
        self._batcher = Batcher(
            self._predictor.detect, batch_size, max_wait_ms / 1000, self.metrics.batches.observe
        )
        self.metrics.waiting.set_function(lambda: self.waiting)

    def close(self) -> None:
        """End the threads."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._batcher.close()

    def facts(self, *, token_required: bool) -> ModelFacts:
        """What a client has to know."""
        names, ids = self.runtime.classes
        classes = [
            ModelClass(label=label, id=one, name=name)
            for label, (one, name) in enumerate(zip(ids, names, strict=True))
        ]
        return ModelFacts(
            name=self.name,
            classes=classes,
            input_size_hw=self.runtime.input_hw,
            threshold=THRESHOLD,
            max_upload_bytes=self.limits.max_upload_bytes,
            max_pixels=self.limits.max_pixels,
            max_pictures=self.limits.max_pictures,
            token_required=token_required,
        )

    @property
    def waiting(self) -> int:
        """Pictures that are decoded, wait or are looked at."""
        return self._places.taken

    async def answer(self, content_type: str, body: Body) -> Answer:
        """Read, decode, detect.

        Raises:
            HTTPException: The request cannot be answered, with the reason.
        """
        self._places.check(1)  # where all are taken, no body need come
        data = await body.read(self._coming)
        await body.check_is_awaited()
        self._places.take(1)
        decoding = Decoding(content_type, data)
        del data  # it may be large: the decoder drops it once it has been read
        work = self._decoders.submit(decoding.run, self._predictor, self.limits)
        try:
            return await asyncio.wait_for(self._detect(work, body), self.limits.timeout_s)
        except asyncio.TimeoutError as error:
            raise problem(503, f"no answer within {self.limits.timeout_s:g} s; try again later") from error
        finally:
            decoding.give_up()
            work.cancel()
            work.add_done_callback(lambda _: self._places.give_back(1))  # not before its thread is free

    async def _detect(self, work: "Future[Decoded]", body: Body) -> Answer:
        asked = await asyncio.wrap_future(work)
        await body.check_is_awaited()
        with self._places.hold(len(asked.pictures) - 1):
            futures = [asyncio.wrap_future(future) for future in self._batcher.find(asked.pictures)]
            found = await asyncio.gather(*futures)
        self.metrics.pictures.inc(len(found))
        return _answer(asked, found, self.runtime.classes)


def _answer(asked: Decoded, found: list[Found], classes: ClassNames) -> Answer:
    results = [
        PictureAnswer(
            name=name,
            width=picture.size_hw[1],
            height=picture.size_hw[0],
            detections=_detections(one.above(asked.threshold), classes),
        )
        for name, picture, one in zip(asked.names, asked.pictures, found, strict=True)
    ]
    return Answer(results=results)


def _detections(found: Found, classes: ClassNames) -> list[Detection]:
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes_xyxy_px.tolist(), strict=True)
    return [
        Detection(label=label, id=classes.ids[label], name=classes.names[label], score=score, box=tuple(box))
        for label, score, box in rows
    ]
