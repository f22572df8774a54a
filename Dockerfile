# mcss in a container, for processors or for CUDA:
#
#   docker build -t mcss .                                             # processors alone
#   docker build -t mcss:cuda --build-arg TORCH=cu130 .                # NVIDIA GPUs; run with --gpus all
#   docker run --rm -v "$PWD:/data" mcss predict photo.jpg -o poses
#   docker run --rm -v "$PWD:/data" -p 127.0.0.1:7860:7860 mcss serve --host 0.0.0.0
FROM python:3.12-slim

# Which build of PyTorch: cpu, or a CUDA version such as cu130.
ARG TORCH=cpu
ARG EXTRAS=synthetic,video,datasets,weights,search,serve,onnx

RUN pip install --no-cache-dir torch torchvision --index-url "https://download.pytorch.org/whl/${TORCH}"

WORKDIR /src
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN pip install --no-cache-dir ".[${EXTRAS}]"

# Files are written to the folder that is mounted, as an ordinary user.
RUN useradd --create-home mcss
USER mcss
ENV MCSS_CACHE=/home/mcss/.cache/mcss
WORKDIR /data

ENTRYPOINT ["mcss"]
CMD ["--help"]
