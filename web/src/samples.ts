// The sample that a new function begins with, by language: the project's own examples.
import goEvent from '../../examples/go/hello_cloudevent/function.go?raw'
import goEventMod from '../../examples/go/hello_cloudevent/go.mod?raw'
import goEventSum from '../../examples/go/hello_cloudevent/go.sum?raw'
import goHttp from '../../examples/go/hello_http/function.go?raw'
import goHttpMod from '../../examples/go/hello_http/go.mod?raw'
import goHttpSum from '../../examples/go/hello_http/go.sum?raw'
import javaEventPom from '../../examples/java/hello_cloudevent/pom.xml?raw'
import javaEvent from '../../examples/java/hello_cloudevent/src/main/java/functions/HelloCloudEvent.java?raw'
import javaHttpPom from '../../examples/java/hello_http/pom.xml?raw'
import javaHttp from '../../examples/java/hello_http/src/main/java/functions/HelloHttp.java?raw'
import nodeEvent from '../../examples/nodejs/hello_cloudevent/index.js?raw'
import nodeEventPackage from '../../examples/nodejs/hello_cloudevent/package.json?raw'
import nodeHttp from '../../examples/nodejs/hello_http/index.js?raw'
import nodeHttpPackage from '../../examples/nodejs/hello_http/package.json?raw'
import pythonEvent from '../../examples/python/hello_cloudevent/main.py?raw'
import pythonEventNeeds from '../../examples/python/hello_cloudevent/requirements.txt?raw'
import pythonHttp from '../../examples/python/hello_http/main.py?raw'
import pythonHttpNeeds from '../../examples/python/hello_http/requirements.txt?raw'

export interface Sample {
  target: string
  files: Record<string, string>
}

export type Sort = 'http' | 'event'

const SAMPLES: Record<string, Record<Sort, Sample>> = {
  python: {
    http: { target: 'hello_http', files: { 'main.py': pythonHttp, 'requirements.txt': pythonHttpNeeds } },
    event: { target: 'hello_cloudevent', files: { 'main.py': pythonEvent, 'requirements.txt': pythonEventNeeds } },
  },
  nodejs: {
    http: { target: 'helloHttp', files: { 'index.js': nodeHttp, 'package.json': nodeHttpPackage } },
    event: { target: 'helloCloudEvent', files: { 'index.js': nodeEvent, 'package.json': nodeEventPackage } },
  },
  go: {
    http: { target: 'HelloHTTP', files: { 'function.go': goHttp, 'go.mod': goHttpMod, 'go.sum': goHttpSum } },
    event: { target: 'HelloCloudEvent', files: { 'function.go': goEvent, 'go.mod': goEventMod, 'go.sum': goEventSum } },
  },
  java: {
    http: { target: 'functions.HelloHttp', files: { 'src/main/java/functions/HelloHttp.java': javaHttp, 'pom.xml': javaHttpPom } },
    event: { target: 'functions.HelloCloudEvent', files: { 'src/main/java/functions/HelloCloudEvent.java': javaEvent, 'pom.xml': javaEventPom } },
  },
}

/** python of python312. */
export const languageOf = (runtime: string) => /^[a-z]+/.exec(runtime)?.[0] ?? ''

export function sampleOf(runtime: string, sort: Sort): Sample | undefined {
  return SAMPLES[languageOf(runtime)]?.[sort]
}
