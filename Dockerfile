# syntax=docker/dockerfile:1
# What runs is the packed product, as `npm install --global` would have it: no sources, no development dependencies.
FROM node:22-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY . .
RUN npm run build && npm pack --ignore-scripts --pack-destination /tmp \
  && mkdir /out && cd /out && npm init -y >/dev/null \
  && npm install --omit=dev --omit=peer --ignore-scripts /tmp/cupbearer-*.tgz \
  && npm cache clean --force

FROM node:22-bookworm-slim
LABEL org.opencontainers.image.title="cupbearer" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV NODE_ENV=production
COPY --from=build /out/node_modules /opt/cupbearer/node_modules
RUN ln -s /opt/cupbearer/node_modules/.bin/cupbearer /usr/local/bin/cupbearer \
  && rm -rf /usr/local/lib/node_modules /opt/yarn-* \
  && install -d -o node -g node -m 700 /var/lib/cupbearer \
  && install -d -o root -g root -m 755 /etc/cupbearer
# Everything that is written goes here: the root file system may be read-only.
VOLUME /var/lib/cupbearer
WORKDIR /var/lib/cupbearer
USER node
EXPOSE 8080 8081
# SIGTERM lets requests in flight end; give it server.drainTimeout and a little.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:8081/healthz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["cupbearer"]
CMD ["start", "-c", "/etc/cupbearer/config.json"]
