# Training in a container, as an ordinary user, on CPU:
#
#   docker build -t atat-tf .
#   docker run --rm -v "$PWD/runs:/app/runs" atat-tf \
#       --dataset=digits --workdir=runs/digits
#
# /app/runs must be writable for user 1000 (`--user` names another).
# For GPUs, put this line after the requirements
#
#   RUN pip install --no-cache-dir "tensorflow[and-cuda]==2.21.0"
#
# and run with `docker run --gpus all ...`.
FROM python:3.11.13-slim-bookworm

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

RUN useradd --create-home --uid 1000 atat \
    && mkdir -p /app/runs \
    && chown atat:atat /app/runs
WORKDIR /app

# Before the sources, so that a change of code keeps this layer.
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -r requirements.txt

COPY LICENSE ./
COPY configs/ configs/
COPY atat_tf/ atat_tf/

USER atat
ENTRYPOINT ["python", "-m", "atat_tf.train"]
