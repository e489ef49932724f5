import { writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A folder of its own for one test, with files that the test writes; gone afterwards. */
export class Folder {
  readonly path: string

  private constructor(path: string) {
    this.path = path
  }

  static async create(): Promise<Folder> {
    return new Folder(await mkdtemp(join(tmpdir(), 'cupbearer-test-')))
  }

  at(name: string): string {
    return join(this.path, name)
  }

  /** Writes text as it is and anything else as JSON, at once: who watches sees no half; returns the path. */
  async write(name: string, content: unknown): Promise<string> {
    const file = this.at(name)
    writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content, null, 2))
    return file
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true })
  }
}
