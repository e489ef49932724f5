import fc from 'fast-check'

// The same cases in every run: what is found by luck belongs into `npm run fuzz`, or here by FC_SEED.
fc.configureGlobal({ seed: Number(process.env.FC_SEED ?? 1) })
