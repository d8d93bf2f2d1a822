# The image: the compiled service, its addon and the packages that it needs at run time, on Node's slim image.
#
#   docker build -t holdfast .
#   docker build -t holdfast:debug --build-arg NATIVE=debug .     with assertions and fail points, for drills only
#
# No syntax line and no here-document, so that old engines and closed networks build it too.
FROM node:24-bookworm AS packages
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --no-audit --no-fund && find node_modules -name '*.map' -delete

FROM node:24-bookworm AS build
WORKDIR /app
# Node's own headers are in the image: node-gyp has nothing to download.
ENV npm_config_nodedir=/usr/local
COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
# The addon in a layer of its own: an edit of TypeScript compiles no C++.
ARG NATIVE=release
COPY scripts scripts
COPY native native
RUN node scripts/build.mjs "$NATIVE"
COPY . .
RUN node scripts/build.mjs ts && find dist \( -name '*.map' -o -name '*.d.ts' \) -delete && strip --strip-debug build/Release/*.node \
 && mkdir -p /out/data /out/app/dist /out/app/build/Release && cp package.json LICENSE /out/app \
 && cp -r dist/service dist/native /out/app/dist && cp -r ui /out/app && cp build/Release/*.node /out/app/build/Release

FROM node:24-bookworm-slim
# A service needs no package manager: what isn't there can't be called.
RUN rm -rf /usr/local/lib/node_modules /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack /usr/local/bin/yarn* /opt/yarn*
COPY --from=packages /app/node_modules /app/node_modules
COPY --from=build /out/app /app
# A named volume takes the owner of the folder that it is mounted over.
COPY --from=build --chown=10001:10001 /out/data /data
WORKDIR /app
ARG NATIVE=release
ENV NODE_ENV=production HOST=0.0.0.0 PORT=8080 DATA_DIR=/data HOLDFAST_NATIVE=$NATIVE
USER 10001:10001
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/livez`).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# The process itself, without a shell: a shell would be process 1 and pass no signal on.
ENTRYPOINT ["node", "/app/dist/service/main.js"]
