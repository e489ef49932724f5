/**
 * Imported before all else. By default SIGUSR1 opens Node's inspector on a local port, through which every
 * secret of the process can be read; a handler of our own takes its place.
 */
process.on('SIGUSR1', () => {})

/** A diagnostic report that somebody asks for should not quote the environment; Node 20 knows no such wish. */
Object.assign(process.report, { excludeEnv: true })
