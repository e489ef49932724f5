import { judge } from './judge.ts'
import { RUNTIMES } from './matrix.ts'

judge(RUNTIMES)
