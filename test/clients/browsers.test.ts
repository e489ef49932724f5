import { judge } from './judge.ts'
import { BROWSERS_AND_STREAMS } from './matrix.ts'

judge(BROWSERS_AND_STREAMS)
