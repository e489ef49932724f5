export const PROGRAMS: Record<string, string>
export const LIBRARIES: Record<string, { packages: string[]; isThere(): boolean }>
export function pythonWithModules(): string | undefined
