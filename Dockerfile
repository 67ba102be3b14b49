# docker build -t quadmatch . && docker run --rm -v "$PWD:/data" quadmatch a.jpg b.jpg output=auto
FROM python:3.12-slim
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY matcher matcher
COPY quadmatch quadmatch
RUN python -m pip install --no-cache-dir --constraint requirements.lock . \
    && rm -rf /source && useradd --create-home --uid 1000 user
USER user
WORKDIR /data
ENTRYPOINT ["quadmatch"]
