// A table, and a card that shows a list as one: what is waited for, what failed, what there is to do when it is empty.
import type { ReactNode } from 'react'
import type { Query } from '../query'
import { t } from '../texts'
import { Empty, Failure, Waiting } from './basic'
import type { IconName } from './icons'

export interface Column<T> {
  head: string
  kind?: 'name' | 'fit' | 'number'
  title?: (row: T) => string
  cell: (row: T) => ReactNode
}

export function Table<T>({ rows, keyOf, columns, actions }: { rows: T[]; keyOf: (row: T) => string; columns: Column<T>[]; actions?: (row: T) => ReactNode }) {
  return (
    <div className="table-box">
      <table>
        <thead>
          <tr>
            {columns.map((column) => <th key={column.head} scope="col" className={column.kind === 'name' ? '' : column.kind}>{column.head}</th>)}
            {actions && <th scope="col" className="fit"><span className="hidden-text">{t('revisions.actions')}</span></th>}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={keyOf(row)}>
              {columns.map((column) => (
                <td key={column.head} className={column.kind === 'name' ? 'name-cell' : column.kind === 'number' ? 'number fit' : column.kind} title={column.title?.(row)}>{column.cell(row)}</td>
              ))}
              {actions && <td className="fit actions">{actions(row)}</td>}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

/** A card with the list that `query` has read; `rows` of it where not all are shown. */
export function ListCard<T, Q>({ label, query, rows, empty, head, ...table }: {
  label: string
  query: Query<Q>
  rows: (data: Q) => T[]
  empty: { icon: IconName; title: string; text: string; command?: string }
  head?: ReactNode
  keyOf: (row: T) => string
  columns: Column<T>[]
  actions?: (row: T) => ReactNode
}) {
  const list = query.data === undefined ? [] : rows(query.data)
  return (
    <>
      <Failure error={query.error} />
      {query.waiting && <Waiting />}
      {query.data !== undefined && (
        <section className="card" aria-label={label}>
          {head && <header>{head}</header>}
          {list.length === 0 ? <Empty {...empty} /> : <Table rows={list} {...table} />}
        </section>
      )}
    </>
  )
}
