"""A job's data as the processor's own model, checked before the call."""

from dataclasses import replace

from pydantic import ValidationError

from pipeline.errors import PermanentFailure
from pipeline.jobs.model import Job
from pipeline.jobs.registry import Processor


def validated(job: Job, processor: Processor) -> Job:
    """The job with its data as `processor.input`, if the processor declares one.

    Raises PermanentFailure that lists each field and what is wrong with it (never its value, which may be personal).
    """
    if processor.input is None:
        return job
    try:
        data = processor.input.model_validate(job.data)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        listed = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'data'}: {fault['msg']}" for fault in faults)
        raise PermanentFailure(f"the job's data does not fit: {listed}") from error
    return replace(job, data=data)
