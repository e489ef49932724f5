import { judge } from './judge.ts'
import { TOOLS } from './matrix.ts'

judge(TOOLS)
