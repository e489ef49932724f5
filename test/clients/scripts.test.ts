import { judge } from './judge.ts'
import { SCRIPTS } from './matrix.ts'

judge(SCRIPTS)
